// What `argus template` writes, word for word; a test holds the two together.

export const KINDS = ["sft", "grpo", "ppo"] as const;
export type Kind = (typeof KINDS)[number];

export const ABOUT: Readonly<Record<Kind, string>> = {
  sft: "Supervised fine-tuning on conversations",
  grpo: "Several answers to each prompt, scored by a rule",
  ppo: "With a critic beside the model",
};

const FIRST: Readonly<Record<Kind, string>> = {
  sft: "Supervised fine-tuning with verl.",
  grpo: "GRPO with verl: several answers to each prompt, scored by a rule; no critic.",
  ppo: "PPO with verl: a critic is trained beside the model, from the same weights.",
};

const REWARDED = `# (*) Parquet files with the columns \`prompt\`, \`data_source\` and \`reward_model\`
# with its \`ground_truth\`. \`data_source\` says which rule scores the answers.
train_file: FOLDER/common/datasets/gsm8k/train.parquet
val_file: FOLDER/common/datasets/gsm8k/test.parquet
`;

const DATA: Readonly<Record<Kind, string>> = {
  sft: `# (*) Parquet files with a column \`messages\`: a list of {role, content}.
train_file: FOLDER/common/datasets/gsm8k-sft/train.parquet
val_file: FOLDER/common/datasets/gsm8k-sft/test.parquet
`,
  grpo: REWARDED,
  ppo: REWARDED,
};

const isKind = (kind: string | null): kind is Kind => (KINDS as readonly (string | null)[]).includes(kind);

/** Null for a kind that there is no template of. `root`: the shared root of the service. */
export function templateOf(kind: string | null, root = "/private"): string | null {
  if (!isKind(kind)) return null;
  const every = kind === "sft" ? 100 : 20;
  return `# ${FIRST[kind]}${kind === "sft" ? " " : "\n# "}Change what is marked with (*), then:
#   argus validate FILE && argus submit FILE --watch
workload: ${kind}

# (*) The folder with verl, as your operator has laid it below
# FOLDER/common/.
code_path: FOLDER/common/code/verl
# (*) A model of the shared cache by its Hub id, or a folder below
# FOLDER/common/.
model_id: Qwen/Qwen2.5-0.5B-Instruct
${DATA[kind]}
# (*) The gang: so many machines with so many GPUs each. All of them start
# together.
nnodes: 1
n_gpus_per_node: ${kind === "sft" ? 1 : 4}

# The run ends after the epochs, or after the steps if these are over first.
total_epochs: 1
# total_training_steps: 100

# Every so many steps: a checkpoint to resume from, and a validation. -1: none.
save_freq: ${every}
test_freq: ${every}

# cpu: a trial of a tiny model on machines without GPUs.
trainer_device: cuda
`.replaceAll("FOLDER", () => root);
}
