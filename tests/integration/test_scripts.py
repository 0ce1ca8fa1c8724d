"""The scripts: what one entry must not do to others, and what must not stay behind."""

from octollm.protocol.fairness import Fairness
from octollm.protocol.handoff import Handoff
from octollm.protocol.operations import Schedule
from tests.helpers.consumers import CLAIM_ALL, KEYS, topology


async def test_retries_for_a_stream_that_is_no_more_do_not_hold_up_the_others(client):
    handoff = Handoff(client, "l0", "judge", "a", Fairness(topology(), "l0"))
    known = KEYS.stream(topology().arm("judge"))
    gone = "{l0}:arm.gone:normal"
    for number in range(150):
        await handoff.publish([Schedule(KEYS.schedule, KEYS.messages, gone, 0, f"gone{number}", {"type": "x"})])
    await handoff.publish([Schedule(KEYS.schedule, KEYS.messages, known, 0, "mine", {"type": "x"})])
    for _ in range(3):
        await handoff.promote()
    assert await client.xlen(known) == 1
    assert await client.zcard(KEYS.schedule) == 150  # for a caller who knows that stream


async def test_a_step_end_that_is_given_up_on_leaves_no_in_flight_field(client):
    topic = topology().topics["steps.done"]
    ident = "l0-01jd0000000000000000000001.1.check.0.1"
    await client.xgroup_create(KEYS.done, "orchestrator", "0", mkstream=True)
    added = await client.xadd(KEYS.done, {"type": "step.done.v1", "id": ident, "tenant": "default", "body": "{}"})
    entry = added.decode()
    await client.hset(KEYS.in_flight, ident.rpartition(".")[0], f"{KEYS.done} {entry}")
    await client.xreadgroup("orchestrator", "killed", {KEYS.done: ">"})
    await client.xclaim(KEYS.done, "orchestrator", "killed", 0, [entry], idle=60000, retrycount=5, justid=True)
    _, dead, _ = await Handoff(client, "l0", "orchestrator", "b").claim(KEYS.done, topic, CLAIM_ALL)
    assert dead == [entry]
    assert await client.hlen(KEYS.in_flight) == 0
