/** `completion`: prints a script that completes command lines in a shell, made of the definitions of all commands. */
import { type Command, optionsOf } from "./command.ts";
import type { OptionDefinition } from "./options.ts";

/** What follows an option: a path, one of some words, something else, or nothing. */
type ValueKind = "path" | readonly string[] | "other" | "none";

/**
 * The command.
 *
 * @param commands Gives all commands, this one included.
 */
export function completionCommand(commands: () => readonly Command[]): Command {
  return {
    name: "completion",
    summary: "print a script that completes command lines in a shell",
    usage: ["bash|zsh|fish"],
    description:
      `Prints a script that completes commands, actions, options and their values. Bash and zsh read
      it with "source", fish from its folder of completions.`,
    actions: {
      title: "Shells",
      list: [
        { word: "bash", help: "source <(viommu completion bash)" },
        { word: "zsh", help: "source <(viommu completion zsh)" },
        { word: "fish", help: "viommu completion fish | source" },
      ],
    },
    options: [],
    async run({ action }, streams) {
      await streams.write(
        action === "fish" ? fishScript(commands()) : shScript(commands(), action),
      );
      return 0;
    },
  };
}

/** What follows an option. */
function valueKind({ value }: OptionDefinition): ValueKind {
  if (value === undefined) return "none";
  if (/^(PATH|FILE)$/.test(value)) return "path";
  return /^[a-z0-9]+(\|[a-z0-9_-]+)+$/.test(value) ? value.split("|") : "other";
}

/** The names of an option, as typed. */
function namesOf({ name, short }: OptionDefinition): readonly string[] {
  return short === undefined ? [`--${name}`] : [`--${name}`, `-${short}`];
}

/** What can be typed behind the name of a command. */
function wordsOf(command: Command): readonly string[] {
  const actions = command.actions?.list.map(({ word }) => word) ?? [];
  return [...actions, ...optionsOf(command).flatMap(namesOf), "--help"];
}

/** A function for bash; zsh has it, too, with its own copy of bash's completion. */
function shScript(commands: readonly Command[], shell: string): string {
  const values = commands.flatMap((command) =>
    optionsOf(command).flatMap((option) => {
      const kind = valueKind(option);
      if (kind === "none") return [];
      const patterns = namesOf(option).map((name) => `"${command.name} ${name}"`).join("|");
      if (kind === "other") return [`    ${patterns}) return ;;`];
      if (kind === "path") return [`    ${patterns}) words=$(compgen -f -- "$current") ;;`];
      return [`    ${patterns}) words="${kind.join(" ")}" ;;`];
    })
  );
  const names = ["help", ...commands.map(({ name }) => name)].join(" ");
  return [
    ...(shell === "zsh" ? ["autoload -U +X bashcompinit && bashcompinit"] : []),
    "_viommu() {",
    '  local current="${COMP_WORDS[COMP_CWORD]}" command="${COMP_WORDS[1]}" words',
    '  case "$command ${COMP_WORDS[COMP_CWORD-1]}" in',
    ...values,
    "    *)",
    '      case "$COMP_CWORD $command" in',
    `        "1 "*|"2 help") words="${names}" ;;`,
    ...commands.map((command) =>
      `        *" ${command.name}") words="${wordsOf(command).join(" ")}" ;;`
    ),
    "      esac ;;",
    "  esac",
    "  local IFS=$' \\t\\n'",
    '  COMPREPLY=($(compgen -W "$words" -- "$current"))',
    "}",
    "complete -F _viommu viommu",
    "",
  ].join("\n");
}

/** Lines for fish. */
function fishScript(commands: readonly Command[]): string {
  const lines = ["complete -c viommu -f"];
  for (const command of commands) {
    lines.push(
      `complete -c viommu -n __fish_use_subcommand -a ${command.name} -d ${
        quoted(command.summary)
      }`,
    );
    const line = `complete -c viommu -n '__fish_seen_subcommand_from ${command.name}'`;
    for (const { word, help } of command.actions?.list ?? []) {
      lines.push(`${line} -a ${word} -d ${quoted(help)}`);
    }
    for (const option of optionsOf(command)) {
      const kind = valueKind(option);
      const short = option.short === undefined ? "" : ` -s ${option.short}`;
      const value = kind === "none"
        ? ""
        : kind === "path"
        ? " -r -F"
        : kind === "other"
        ? " -x"
        : ` -x -a ${quoted(kind.join(" "))}`;
      lines.push(`${line} -l ${option.name}${short}${value} -d ${quoted(option.help)}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

/** A text in single quotes, as fish reads it. */
function quoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
