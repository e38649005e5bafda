// The fields, each with its rule beside it. What is typed here is written into the text, and what the text says is here.
import { useRef } from "preact/hooks";
import { change, draft } from "./draft";
import type { Finding } from "./findings";
import { IGNORED, type FieldSchema } from "./schema";
import { withField, type FieldText, type Spec } from "./text";

interface Props {
  schema: readonly FieldSchema[];
  spec: Spec;
  findings: readonly Finding[];
}

export function Form({ schema, spec, findings }: Props) {
  // While the text is no mapping the form shows what it was last.
  const last = useRef(spec);
  if (!spec.faults.length) last.current = spec;
  const shown = last.current.fields;
  const order = schema.map((each) => each.name);
  return (
    <form class="spec-form" aria-label="TaskSpec as a form" onSubmit={(event) => event.preventDefault()}>
      {spec.faults.length ? <p class="note" data-look="wait">The form goes on when the text is YAML again: see line {spec.faults[0]?.line}.</p> : null}
      <fieldset class="spec-fields" disabled={spec.faults.length > 0}>
        {schema.filter((each) => !IGNORED.has(each.name) || shown.has(each.name)).map((each) => (
          <Field key={each.name} schema={each} given={shown.get(each.name)} order={order} finding={findings.find((one) => one.field === each.name)} />
        ))}
      </fieldset>
    </form>
  );
}

interface FieldProps {
  schema: FieldSchema;
  given: FieldText | undefined;
  order: readonly string[];
  finding: Finding | undefined;
}

export const fieldId = (name: string): string => `spec-${name}`;

function Field({ schema, given, order, finding }: FieldProps) {
  const { name, options } = schema;
  const style = useRef(given?.style);
  const says = `${fieldId(name)}-says`;
  const set = (value: string): void => change({ text: withField(draft.peek().text, { name, value, isWhole: schema.isWhole, style: style.current }, order) });
  const label = <><span>{schema.label}</span> {schema.label === name ? null : <code class="muted cut">{name}</code>}</>;
  const isHalf = schema.isWhole || (options?.length ?? 3) < 3;
  return (
    <div class={isHalf ? "field half" : "field"} data-field={name}>
      {options ? (
        <>
          <span class="label" id={`${fieldId(name)}-label`}>{label}</span>
          <div class="segments" role="radiogroup" aria-labelledby={`${fieldId(name)}-label`} aria-describedby={says} aria-invalid={finding?.look === "bad"}>
            {options.map((option, index) => (
              <label key={option}>
                <input type="radio" id={index === 0 ? fieldId(name) : undefined} name={name} value={option} checked={(given?.value || schema.placeholder) === option} disabled={given?.isLocked ?? false} onChange={() => set(option)} />
                <span>{option}</span>
              </label>
            ))}
          </div>
        </>
      ) : (
        <>
          <label for={fieldId(name)}>{label}</label>
          <input id={fieldId(name)} class={schema.isWhole ? "input num" : "input mono"} type="text" inputMode={schema.isWhole ? "numeric" : "text"} autoComplete="off" autoCapitalize="off" spellcheck={false}
            value={given?.value ?? ""} placeholder={schema.placeholder} readOnly={given?.isLocked ?? false} aria-required={schema.isRequired} aria-invalid={finding?.look === "bad"} aria-describedby={says}
            onFocus={() => (style.current = given?.style)} onInput={(event) => set(event.currentTarget.value)} />
        </>
      )}
      <Says id={says} schema={schema} finding={finding} isLocked={given?.isLocked ?? false} />
    </div>
  );
}

function Says({ id, schema, finding, isLocked }: { id: string; schema: FieldSchema; finding: Finding | undefined; isLocked: boolean }) {
  if (finding) return <p id={id} class={finding.look === "bad" ? "wrong" : "doubt"}>{finding.rule}</p>;
  if (isLocked) return <p id={id} class="hint">It takes more than a line: change it in the text.</p>;
  return <p id={id} class="hint cut" title={schema.hint.join("")}>{schema.hint.map((part, index) => (index % 2 ? <code key={index}>{part}</code> : part))}</p>;
}
