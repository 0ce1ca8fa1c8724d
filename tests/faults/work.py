"""What the tasks of a campaign do: their recipes, the arm that leaves a log, and the right answers."""

import json

ARM = """
  arm.effect:
    description: leaves a line in a log outside the system
    accepts: [step.requested.v1]
    group: effect
    handler: effects:Effect
    priorities: true
    concurrency: 32
    lease_s: 3
    heartbeat_s: 1
    max_deliveries: 5
    timeout_s: 60
    retry: {max_failures: 5, base_ms: 200, cap_ms: 2000}

  dead:
"""
"""Takes the place of the line before it in streams.yaml."""
WATCHED = ("handler: octollm.arms.judge:Judge", "handler: effects:WatchedJudge")
"""The judge that leaves a line, too, and is the same otherwise."""
_ENDLESS = {
    "$ref": "#/$defs/d0",
    "$defs": {
        **{f"d{number}": {"allOf": [{"$ref": f"#/$defs/d{number + 1}"}] * 2} for number in range(40)},
        "d40": {"type": "integer"},
    },
}
"""Checked in two to the power of forty."""
RECIPES = {
    "ledger": """
recipe: ledger
version: 1
description: four effects with a join
deadline_s: 3600
input: {type: object, required: [n], properties: {n: {type: integer}, do: {type: object}}}
steps:
  one: {arm: effect, input: {n: {$: task.input.n}, do: {$: task.input.do}}}
  left: {arm: effect, needs: [one], input: {n: {$: steps.one.output.value}, of: {$: "[steps.one.output.mark]"}}}
  right:
    arm: effect
    needs: [one]
    input: {n: {$: steps.one.output.value}, of: {$: "[steps.one.output.mark]"}, do: {sleep_ms: 50}}
  join:
    arm: effect
    needs: [left, right]
    input:
      n: {$: "sum([steps.left.output.value, steps.right.output.value])"}
      of: {$: "[steps.left.output.mark, steps.right.output.mark]"}
  verdict:
    arm: judge
    needs: [join]
    input: {checks: [{check: numeric, value: {$: steps.join.output.value}, expected: {$: steps.join.output.value}}]}
answer: {$: steps.join.output.value}
""",
    "line": """
recipe: line
version: 1
description: three effects one after the other, which may go from arm to arm directly
deadline_s: 3600
input: {type: object, required: [n], properties: {n: {type: integer}, do: {type: object}}}
steps:
  one: {arm: effect, input: {n: {$: task.input.n}, do: {$: task.input.do}}}
  two: {arm: effect, needs: [one], input: {n: {$: steps.one.output.value}, of: {$: "[steps.one.output.mark]"}}}
  three:
    arm: effect
    needs: [two]
    input: {n: {$: steps.two.output.value}, of: {$: "[steps.one.output.mark, steps.two.output.mark]"}}
  verdict:
    arm: judge
    needs: [three]
    input: {checks: [{check: numeric, value: {$: steps.three.output.value}, expected: {$: steps.three.output.value}}]}
answer: {$: steps.three.output.value}
""",
    "sandbox": """
recipe: sandbox
version: 1
description: one step in the sandbox
deadline_s: 3600
input: {type: object, required: [n], properties: {n: {type: integer}, do: {type: object}}}
steps:
  run:
    arm: executor
    input:
      language: python
      parse: json
      limits: {wall_s: 60}
      args: [{$: "to_string(task.input.n)"}, {$: "to_string(task.input.do.sleep_ms || `0`)"}]
      code: "import sys, time; time.sleep(int(sys.argv[2]) / 1000); print(int(sys.argv[1]) + 1)"
answer: {$: steps.run.output.result}
""",
    "split": """
recipe: split
version: 1
description: an effect next to a judge that refuses
deadline_s: 3600
input: {type: object, required: [n], properties: {n: {type: integer}, do: {type: object}}}
steps:
  first: {arm: effect, input: {n: {$: task.input.n}}}
  long: {arm: effect, needs: [first], input: {n: 0, of: {$: "[steps.first.output.mark]"}, do: {$: task.input.do}}}
  verdict:
    arm: judge
    needs: [first]
    input: {checks: [{check: numeric, value: {$: steps.first.output.value}, expected: -1}]}
answer: {$: steps.first.output.value}
""",
    "nap": """
recipe: nap
version: 1
description: one effect that may take its time
deadline_s: 3600
input: {type: object, required: [n], properties: {n: {type: integer}, do: {type: object}}}
steps:
  one: {arm: effect, input: {n: {$: task.input.n}, do: {$: task.input.do}}}
answer: {$: steps.one.output.value}
""",
    "pair": """
recipe: pair
version: 1
description: two effects at once
deadline_s: 3600
input: {type: object, required: [n], properties: {n: {type: integer}, do: {type: object}}}
steps:
  one: {arm: effect, input: {n: {$: task.input.n}, do: {$: task.input.do}}}
  two: {arm: effect, input: {n: {$: task.input.n}, do: {$: task.input.do}}}
answer: {$: steps.two.output.value}
""",
    "paid": """
recipe: paid
version: 1
description: one effect that asks a model, and has less time than its answer takes to be stored
deadline_s: 3600
input: {type: object, required: [n], properties: {n: {type: integer}, do: {type: object}}}
steps:
  one: {arm: effect, timeout_s: 8, input: {n: {$: task.input.n}, do: {ask: true}}}
answer: {$: steps.one.output.value}
""",
    "odd": """
recipe: odd
version: 1
description: a reference that cannot be evaluated for some numbers
deadline_s: 3600
input: {type: object, required: [n, do], properties: {n: {type: integer}, do: {type: object}}}
steps:
  one: {arm: effect, input: {n: {$: "ceil(to_number(task.input.do.x))"}}}
answer: {$: steps.one.output.value}
""",
    "slow_check": """
recipe: slow_check
version: 1
description: a check that would take years, whose process is killed at the step's time limit
deadline_s: 3600
input: {type: object, required: [n], properties: {n: {type: integer}}}
steps:
  verdict:
    arm: judge
    timeout_s: 8
    input: {checks: [{check: schema, value: 1, schema: SCHEMA}]}
answer: {$: steps.verdict.output.verdict}
""".replace("SCHEMA", json.dumps(_ENDLESS)),
    "kept": """
recipe: kept
version: 1
description: one effect that memory keeps
deadline_s: 3600
input: {type: object, required: [n], properties: {n: {type: integer}}}
steps:
  one: {arm: effect, input: {n: {$: task.input.n}}}
answer: {$: steps.one.output.value}
memory:
  title: a number
  text: {$: "to_string(steps.one.output.value)"}
""",
}


def answer_to(kind: str, n: int) -> float:
    """What a task has to answer."""
    return {"ledger": 2.0 * (n + 2) + 1, "line": n + 3}.get(kind, n + 1)
