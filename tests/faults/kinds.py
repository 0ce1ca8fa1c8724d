"""The kinds of tasks of a campaign: their recipes, and what they have to answer."""

RECIPES = {
    "ledger": """
recipe: ledger
version: 1
description: four effects with a join
deadline_s: 3600
input: {type: object, required: [n], properties: {n: {type: integer}, do: {type: object}}}
steps:
  one: {arm: effect, input: {n: {$: task.input.n}, do: {$: task.input.do}}}
  left: {arm: effect, needs: [one], input: {n: {$: steps.one.output.value}}}
  right: {arm: effect, needs: [one], input: {n: {$: steps.one.output.value}, do: {sleep_ms: 50}}}
  join: {arm: effect, needs: [left, right], input: {n: {$: "sum([steps.left.output.value, steps.right.output.value])"}}}
  verdict:
    arm: judge
    needs: [join]
    input: {checks: [{check: numeric, value: {$: steps.join.output.value}, expected: {$: steps.join.output.value}}]}
answer: {$: steps.join.output.value}
""",
    "sandbox": """
recipe: sandbox
version: 1
description: one step in the sandbox
deadline_s: 3600
input: {type: object, required: [n], properties: {n: {type: integer}}}
steps:
  run:
    arm: executor
    input:
      language: python
      parse: json
      args: [{$: "to_string(task.input.n)"}]
      code: "import sys; print(int(sys.argv[1]) + 1)"
answer: {$: steps.run.output.result}
""",
    "kept": """
recipe: kept
version: 1
description: one effect that memory keeps
deadline_s: 3600
input: {type: object, required: [n], properties: {n: {type: integer}}}
steps:
  one: {arm: effect, input: {n: {$: task.input.n}}}
answer: {$: steps.one.output.value}
remember:
  title: a number
  text: {$: "to_string(steps.one.output.value)"}
""",
}


def answer_to(kind: str, n: int) -> float:
    """What a task has to answer."""
    return 2.0 * (n + 2) + 1 if kind == "ledger" else n + 1
