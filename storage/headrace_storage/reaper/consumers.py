"""Rule: a model of the registry has its consumers. Deleted ones are made again, or its jobs would wait for ever."""

from headrace_contracts.errors import TopologyDrift
from headrace_contracts.names import Lane, consumer_name
from headrace_storage.reaper.duty import Act, Duty, Rule, Trouble
from headrace_storage.reaper.survey import ConsumerState, Survey
from headrace_storage.topology import ACK_WAIT_S, ensure_consumers


def missing(model: str, consumers: dict[str, ConsumerState]) -> tuple[list[str], float]:
    """Consumers a model lacks, and the lease to make them with: that of the others, if there are any. Pure."""
    names = [consumer_name(model, lane) for lane in Lane]
    there = [consumers[name].ack_wait_s for name in names if name in consumers]
    return [name for name in names if name not in consumers], min(there, default=ACK_WAIT_S)


async def restore_consumers(duty: Duty, survey: Survey) -> None:
    """Make what is missing. A job that a worker held under the old consumer is delivered again, at once."""
    for model in survey.models:
        absent, ack_wait_s = missing(model, survey.consumers)
        if not absent:
            continue
        duty.check()
        try:
            await ensure_consumers(duty.connection, model, ack_wait_s)
        except TopologyDrift as error:  # of one that is there; the other models go on
            duty.tell(Trouble(Rule.CONSUMERS, str(error)))
            continue
        for name in absent:
            duty.tell(Act(Rule.CONSUMERS, name, f"was missing, made again with ack_wait {ack_wait_s:g} s"))
