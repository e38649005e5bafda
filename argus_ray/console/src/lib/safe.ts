// Text of others: runs, models, users. It is always text and never markup; what it may hold beside that (characters that
// turn the direction of writing, that hide, or that steer a terminal) is shown as what it is, and does nothing.

/** C0 but tab, newline and carriage return, DEL and C1; what turns the direction of writing or takes no room; separators
 * of lines; what is no Unicode. */
const UNFIT = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]/u;
const UNFITS = new RegExp(UNFIT.source, "gu");

/** `‹U+202E›`, and `‹ESC›`: pictures of controls are in few fonts. */
export function sign(character: string): string {
  const code = character.codePointAt(0) ?? 0xfffd;
  if (code >= 0xd800 && code <= 0xdfff) return "\ufffd";
  if (code === 0x1b) return "‹ESC›";
  return `‹U+${code.toString(16).toUpperCase().padStart(4, "0")}›`;
}

export const harmless = (text: string): string => (UNFIT.test(text) ? text.replace(UNFITS, sign) : text);

/** The same for one line: what breaks lines becomes a blank. */
export const oneLine = (text: string): string => harmless(text.replace(/[\r\n\t]+/g, " "));

/** CSI but colours, OSC and its like up to their ends, and the two-character ones: they steer a terminal, and this is none. */
const STEERING = /(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-ln-~]|(?:\x1b\[|\x9b)(?![\d;]*m)[0-?]*[ -/]*m|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b(?!\[)[ -/]*[0-~]/g;

export const withoutSteering = (text: string): string => (/[\x1b\x80-\x9f]/.test(text) ? text.replace(STEERING, "") : text);
