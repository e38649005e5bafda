// Bundles the console into dist/: files with hashes in their names, index.html and docs.html that name them, a gzipped
// twin of each, and the licences of what is inside.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import * as esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "dist");
const making = join(here, "dist.new");
const assets = join(making, "assets");
const modules = join(here, "node_modules");

const options = {
  absWorkingDir: here,
  entryPoints: { console: "src/main.tsx", docs: "src/docs.ts" },
  outdir: assets,
  bundle: true,
  splitting: true,
  format: "esm",
  target: ["chrome120", "firefox121", "safari17.2"],
  jsx: "automatic",
  jsxImportSource: "preact",
  minify: true,
  legalComments: "none", // licences.txt has them whole
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  loader: { ".svg": "file" },
  metafile: true,
  logLevel: "warning",
};

function write(result) {
  const built = Object.entries(result.metafile.outputs);
  const of = (name) => {
    const [path, output] = built.find(([, each]) => each.entryPoint === name);
    return { js: basename(path), css: output.cssBundle ? basename(output.cssBundle) : null };
  };
  const swagger = {
    js: hashed(join(modules, "swagger-ui-dist/swagger-ui-bundle.js")),
    css: hashed(join(modules, "swagger-ui-dist/swagger-ui.css")),
  };
  const icon = hashed(join(here, "src/icon.svg"));
  page("index.html", { ...of("src/main.tsx"), icon });
  page("docs.html", { ...of("src/docs.ts"), icon, swaggerJs: swagger.js, swaggerCss: swagger.css });
  writeFileSync(join(assets, "licences.txt"), licences(result.metafile));
  for (const name of readdirSync(assets)) {
    if (extname(name) !== ".gz") writeFileSync(join(assets, `${name}.gz`), gzipSync(readFileSync(join(assets, name)), { level: 9 }));
  }
  rmSync(out, { recursive: true, force: true });
  renameSync(making, out);
}

/** Copy a file under a name that changes with what it holds. */
function hashed(path) {
  const content = readFileSync(path);
  const hash = createHash("sha256").update(content).digest("hex").slice(0, 8).toUpperCase();
  const name = `${basename(path, extname(path))}-${hash}${extname(path)}`;
  writeFileSync(join(assets, name), content);
  return name;
}

/** A page with the names of its files. What stands in {{prefix}} the gateway knows at each request. */
function page(name, names) {
  let text = readFileSync(join(here, name), "utf8");
  for (const [key, value] of Object.entries(names)) text = text.replaceAll(`{{${key}}}`, value ?? "");
  const left = text.replaceAll("{{prefix}}", "").match(/\{\{\w+\}\}/);
  if (left) throw new Error(`${name}: nothing is known of ${left[0]}`);
  writeFileSync(join(making, name), text);
}

/** The licence texts of the packages that the bundle holds. */
function licences(metafile) {
  const inside = new Set(["swagger-ui-dist"]);
  for (const path of Object.keys(metafile.inputs)) {
    const found = path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//);
    if (found) inside.add(found[1]);
  }
  return [...inside].sort().map((name) => {
    const folder = join(modules, name);
    const about = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const files = readdirSync(folder).filter((each) => /^(licen[cs]e|notice|copying|unlicense)/i.test(each)).sort();
    const texts = files.map((each) => readFileSync(join(folder, each), "utf8").trim());
    if (!texts.length) texts.push(`(the package has no licence file; its package.json says: ${about.license})`);
    return `${name} ${about.version} (${about.license})\n\n${texts.join("\n\n")}\n`;
  }).join(`\n${"-".repeat(80)}\n\n`);
}

rmSync(making, { recursive: true, force: true });
mkdirSync(assets, { recursive: true });
write(await esbuild.build(options));
