// The form's fields, as the JSON schema of the service tells them: a field that it learns is in the form by itself.
import { client, ok } from "../../api/client";

export interface FieldSchema {
  readonly name: string;
  readonly label: string;
  /** Parts of the description; every second one is code. */
  readonly hint: readonly string[];
  readonly isRequired: boolean;
  readonly isWhole: boolean;
  readonly options: readonly string[] | null;
  readonly placeholder: string;
}

interface Property {
  readonly type?: string;
  readonly description?: string;
  readonly format?: string;
  readonly enum?: readonly unknown[];
  readonly default?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly anyOf?: readonly Property[];
}

/** Words where there are better ones than the field's name. */
const LABELS: Readonly<Record<string, string>> = {
  workload: "Kind",
  code_path: "Code",
  model_id: "Model",
  train_file: "Training data",
  val_file: "Validation data",
  nnodes: "Nodes",
  n_gpus_per_node: "GPUs a node",
  total_epochs: "Epochs",
  total_training_steps: "Steps at most",
  save_freq: "Save every",
  test_freq: "Validate every",
  trainer_device: "Device",
  submission_id: "Submission id",
};
/** Accepted and ignored: shown only where a text has it. */
export const IGNORED: ReadonlySet<string> = new Set(["submission_id"]);

const PLACEHOLDERS: Readonly<Record<string, string>> = {
  "input-path": "/…/common/…/train.parquet",
  "input-folder": "/…/common/…",
  model: "organisation/name or /…/common/…",
};

export async function askSchema(signal: AbortSignal): Promise<readonly FieldSchema[]> {
  // The document is a schema, and no answer of the API: it is typed here.
  const answer = (await ok(client.GET("/api/v2/schema/taskspec", { signal }))) as unknown as { properties: Record<string, Property>; required?: readonly string[] };
  const required = new Set(answer.required ?? []);
  return Object.entries(answer.properties).map(([name, property]) => fieldOf(name, property, required.has(name)));
}

function fieldOf(name: string, property: Property, isRequired: boolean): FieldSchema {
  const one = property.anyOf?.find((each) => each.type !== "null") ?? property;
  const isWhole = one.type === "integer";
  return {
    name,
    label: LABELS[name] ?? name,
    hint: hintOf(property, one),
    isRequired,
    isWhole,
    options: one.enum ? one.enum.map(String) : null,
    placeholder: property.default ? String(property.default) : (PLACEHOLDERS[one.format ?? ""] ?? (isRequired ? "" : "no limit")),
  };
}

function hintOf(property: Property, one: Property): readonly string[] {
  const text = (property.description ?? "").replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").replace(/, below$/, "");
  const range = one.minimum !== undefined && one.maximum !== undefined ? `${one.minimum} to ${one.maximum.toLocaleString("en")}. ` : "";
  return `${range}${text}`.split("`");
}
