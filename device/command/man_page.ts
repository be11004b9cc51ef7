import type { Command } from "./command.ts";
import { rowsOf } from "./help.ts";
import { VERSION } from "./version.ts";

/** The man page as troff (`man(7)`), made of the definitions of all commands. */
export function manPage(summary: string, commands: readonly Command[]): string {
  return `${
    [
      `.TH VIOMMU 1 "" "viommu ${VERSION}" "User Commands"`,
      ".SH NAME",
      `viommu \\- ${text(summary)}`,
      ".SH SYNOPSIS",
      ".B viommu",
      ".I COMMAND",
      "[options]",
      ".SH DESCRIPTION",
      "The commands are:",
      ...commands.flatMap(({ name, summary }) => item(bold(name), summary)),
      ...commands.flatMap(commandSection),
    ].join("\n")
  }\n`;
}

/** A command's section. */
function commandSection(command: Command): readonly string[] {
  const { name, usage, description, actions, options, ending } = command;
  return [
    `.SH ${text(name.toUpperCase())}`,
    ".nf",
    ...usage.map((form) => text(`viommu ${name} ${form}`.trimEnd())),
    ".fi",
    ...paragraphs(description),
    ...(actions === undefined ? [] : [
      `.SS ${text(actions.title)}`,
      ...actions.list.flatMap(({ word, takes, help }) =>
        item(takes === undefined ? bold(word) : `${bold(word)} ${text(takes)}`, help)
      ),
    ]),
    ...options.flatMap((group) => [
      `.SS ${text(group.title)}`,
      ...group.options.flatMap(rowsOf).flatMap(({ head, help }) => item(bold(head), help)),
      ...(group.note === undefined ? [] : paragraphs(group.note)),
    ]),
    ...(ending === undefined ? [] : [".PP", ".nf", ...ending.trim().split("\n").map(text), ".fi"]),
  ];
}

/** A head, and what it means. */
function item(head: string, help: string): readonly string[] {
  return [".TP", head, text(help)];
}

/** Paragraphs that are filled. */
function paragraphs(all: string): readonly string[] {
  return all.trim().split("\n\n").flatMap((paragraph) => [
    ".PP",
    text(paragraph.split(/\s+/).join(" ")),
  ]);
}

function bold(words: string): string {
  return `\\fB${text(words)}\\fR`;
}

/** A text that is no request, whatever it begins with, with dashes that can be copied. */
function text(words: string): string {
  const escaped = words.replaceAll("\\", "\\e").replaceAll("-", "\\-");
  return /^[.']/.test(escaped) ? `\\&${escaped}` : escaped;
}
