// Text for a terminal: quoted, so that it means there what it means here.

export function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

/** One argument a line. */
export function commandLines(words: readonly string[]): string {
  return words.map(quoted).join(" \\\n  ");
}

/** A command that reads this text, whatever is in it. */
export function withInput(command: string, text: string): string {
  let end = "TASKSPEC";
  while (text.split("\n").includes(end)) end += "_";
  return `${command} <<'${end}'\n${text}${text.endsWith("\n") ? "" : "\n"}${end}\n`;
}

/** A terminal may act on these, however they are quoted. */
export const hasControls = (text: string): boolean => /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/.test(text);
