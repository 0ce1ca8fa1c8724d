"""Planted bugs in Python code and in the Lua scripts that Python calls."""

from collections.abc import Mapping

from tests.faults.mutants.mutant import Change, Mutant

_ORCHESTRATOR = "workers/octollm/orchestrator"
PYTHON_MUTANTS: Mapping[str, Mutant] = {
    "ack_before_commit": Mutant(
        "the orchestrator acknowledges a message before its transaction is committed",
        ("kill_orchestrator_after_effect",),
        ("lost", "duplicate_effects"),
        (
            Change(
                "workers/octollm/runtime/batched_handler.py",
                "        answer = await batcher.submit(entry)\n",
                "        import redis.asyncio, os\n"
                "        client = redis.asyncio.Redis.from_url(os.environ['OCTOLLM_REDIS_URL'])\n"
                "        await client.xack(entry.stream, topic.group, entry.id)\n"
                "        await client.xdel(entry.stream, entry.id)\n"
                "        await client.aclose()\n"
                "        answer = await batcher.submit(entry)\n"
                "        await publish_anyway(answer)\n",
            ),
            Change(
                "workers/octollm/runtime/batched_handler.py",
                "def task_of(",
                "async def publish_anyway(operations):\n"
                "    import redis.asyncio, os\n"
                "    from octollm.protocol.handoff import Handoff\n"
                "    client = redis.asyncio.Redis.from_url(os.environ['OCTOLLM_REDIS_URL'])\n"
                "    await Handoff(client, 'l0', '', 'mutant').publish(operations)\n"
                "    await client.aclose()\n\n\n"
                "def task_of(",
            ),
        ),
    ),
    "no_fence": Mutant(
        "a process that still knows an entry may finish it, even when another one holds its lease",
        ("freeze_arm",),
        ("duplicate_effects",),
        (
            Change(
                "lua/lease.lua",
                "  if holder[2] ~= consumer or holder[4] ~= delivery then return 'stale' end\n",
                "",
            ),
        ),
    ),
    "counter_join": Mutant(
        "a join counts ends instead of looking which steps have ended",
        ("two_ingresses",),
        ("lost", "unauthorised", "wrong_ends"),
        (
            Change(
                f"{_ORCHESTRATOR}/decide.py",
                "        if state.ended or not _have_succeeded(state, step.needs):",
                '        if sum(one.state == "succeeded" for one in state.steps.values()) < len(step.needs):',
            ),
        ),
    ),
    "dropped_message": Mutant(
        "one message in twenty is acknowledged without being worked on",
        ("two_ingresses",),
        ("lost", "duplicate_effects"),
        (
            Change(
                "workers/octollm/runtime/batched_handler.py",
                "        answer = await batcher.submit(entry)\n",
                "        if sum(entry.id.encode()) % 20 == 0:\n"
                "            return HandlerResult(Outcome.DONE, (), '')\n"
                "        answer = await batcher.submit(entry)\n",
            ),
        ),
    ),
    "effect_twice": Mutant(
        "an arm's work is done twice in one delivery",
        ("two_ingresses",),
        ("duplicate_effects",),
        (
            Change(
                "workers/octollm/steps/runner.py",
                "            output = await run_with_timeout(min(limit_s, left_s + _TIMER_S), self.run_arm(step))\n",
                "            await self.run_arm(step)\n"
                "            output = await run_with_timeout(min(limit_s, left_s + _TIMER_S), self.run_arm(step))\n",
            ),
        ),
    ),
    "swapped_tenants": Mutant(
        "some tasks are written down for another tenant",
        ("two_ingresses",),
        ("unauthorised",),
        (
            Change(
                f"{_ORCHESTRATOR}/intake.py",
                "        tenant=body.tenant,\n",
                '        tenant="other" if body.task[-1] in "0123" else body.tenant,\n',
            ),
        ),
    ),
    "xack_before_xadd": Mutant(
        "an entry is acknowledged first and what follows is written afterwards, in a second call",
        ("kill_effect_after_commit", "kill_orchestrator_after_acknowledge"),
        ("lost", "duplicate_effects"),
        (
            Change(
                "workers/octollm/protocol/handoff.py",
                "",
                "\n\n"
                "_whole = Handoff.complete\n\n\n"
                "async def _torn(self, finishes):\n"
                "    statuses = await _whole(self, [finish._replace(operations=()) for finish in finishes])\n"
                "    for finish, status in zip(finishes, statuses, strict=True):\n"
                "        if status is LeaseStatus.DONE:\n"
                "            await self.publish(finish.operations)\n"
                "    return statuses\n\n\n"
                "Handoff.complete = _torn\n",
            ),
        ),
    ),
    "reconciler_republishes_in_flight": Mutant(
        "the reconciler republishes steps that are still in flight",
        ("slow_steps",),
        ("duplicate_effects",),
        (
            Change(
                "lua/republish.lua",
                "local named = redis.call('HGET', in_flight, field)\n",
                "local named = false\n",
            ),
        ),
    ),
    "second_terminal": Mutant(
        "a task that has ended ends again when its last event comes twice",
        ("late_result",),
        ("second_terminals",),
        (
            Change(
                f"{_ORCHESTRATOR}/decide.py",
                '    if state.ended or row.state != "sent" or done.attempt < row.attempt:\n',
                "    if done.attempt < row.attempt:\n",
            ),
            Change(
                f"{_ORCHESTRATOR}/decide.py",
                "    if not decision.state.ended and _have_succeeded(",
                "    if _have_succeeded(",
            ),
        ),
    ),
    "end_not_announced": Mutant(
        "a run that ends does not stop the steps that are in flight",
        ("ended_runs",),
        ("work_after_end",),
        (
            Change(
                f"{_ORCHESTRATOR}/messages.py",
                "        stop = (self.end_run(state),) if decision.left_in_flight else ()\n",
                "        stop = ()\n",
            ),
        ),
    ),
    "deadline_by_own_clock": Mutant(
        "the orchestrator ends tasks by its own clock",
        ("clock_ahead",),
        ("wrong_ends",),
        (
            Change(
                f"{_ORCHESTRATOR}/service.py",
                "            now = now or keys.now or await store.clock(connection)\n",
                "            from octollm.contracts.ids import utc_now\n            now = utc_now()\n",
            ),
        ),
    ),
    "deadline_by_clock_of_arm": Mutant(
        "an arm compares a task's deadline with its own clock",
        ("clock_ahead",),
        ("wrong_ends",),
        (
            Change(
                "workers/octollm/protocol/run_watch.py",
                '            return float("inf")\n        now_ms = self._clock.now_ms()\n',
                '            return float("inf")\n        now_ms = __import__("time").time() * 1000\n',
            ),
        ),
    ),
    "breaker_counts_inputs": Mutant(
        "what an input breaks counts as a failure of the arm",
        ("poison_burst",),
        ("wrong_ends",),
        (
            Change(
                "workers/octollm/steps/runner.py",
                "handler_fault=faults.may_be_process_fault(error))",
                "handler_fault=True)",
            ),
        ),
    ),
    "endless_content_retried": Mutant(
        "content that never ends is tried as often as any failure that may pass",
        ("blocking_input",),
        ("wrong_ends",),
        (
            Change(
                "workers/octollm/isolation/step.py",
                "            if self.failures and error.worked_s >= self.limit_s / 2:\n",
                "            if self.failures > 100:\n",
            ),
        ),
    ),
    "journal_inside_limit": Mutant(
        "a paid answer of a model is lost when the step's time limit ends before the journal has it",
        ("paid_answer_not_stored",),
        ("wrong_ends",),
        (
            Change(
                "workers/octollm/models/client.py",
                "        new, paid = self._unsaved[key.columns]\n",
                "        new, paid = self._unsaved.pop(key.columns)\n"
                "        return await journal.keep(key, new, paid)\n",
            ),
        ),
    ),
    "reclaim_stops_all": Mutant(
        "a worker that reclaims an entry begins nothing else until that entry has ended",
        ("crash_cost",),
        ("costly_crash",),
        (
            Change("workers/octollm/topology/model.py", "_SUSPECT_FROM = 3\n", "_SUSPECT_FROM = 2\n"),
            Change(
                "workers/octollm/consumer/pool.py",
                "        return None if suspect.entry.delivery >= self._topic.max_deliveries else ISOLATION_S\n",
                "        return None\n",
            ),
            Change("workers/octollm/consumer/pool.py", "_PAUSE_FACTOR = 4\n", "_PAUSE_FACTOR = 0\n"),
        ),
    ),
    "deploys_charge": Mutant(
        "an entry that is given back keeps its delivery, so that a few deploys use them up",
        ("deploys_during_long_steps",),
        ("wrong_ends",),
        (Change("lua/release.lua", "math.max(delivery - 1, 0)", "delivery"),),
    ),
    "finished_work_stays": Mutant(
        "statuses of finished tasks stay in Redis although it is running full",
        ("redis_full_of_finished_work",),
        ("wrong_ends",),
        (Change("lua/evict.lua", "ended[state] then", "false then"),),
    ),
    "log_blocks": Mutant(
        "a log line is written by the thread that logs it, however long that takes",
        ("log_not_read",),
        ("wrong_ends",),
        (
            Change(
                "workers/octollm/observability/log_writer.py",
                "        with self._changed:\n            if self._fd is None or",
                "        if self._fd is not None:\n            os.write(self._fd, line)\n            return\n"
                "        with self._changed:\n            if self._fd is None or",
            ),
        ),
    ),
    "any_lineage": Mutant(
        "the output of a step that was handed off directly is committed, whatever it was made from",
        ("end_lost",),
        ("mixed_results",),
        (
            Change(
                f"{_ORCHESTRATOR}/direct.py",
                "    return all(row is not None and row.digest == made_from[name] for name, row in rows.items())\n",
                "    return len(rows) == len(made_from)\n",
            ),
        ),
        direct=True,
    ),
}
