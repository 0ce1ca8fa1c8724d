"""The form in which people and models write plans down, as closed models. What a value means is checked elsewhere."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_STEPS = 200
MAX_REPAIRS = 5
"""The hard cap on repair rounds: a recipe may allow fewer, never more."""
Name = Annotated[str, Field(pattern=r"\A[a-z][a-z0-9_-]{0,62}\z")]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Reference(Closed):
    """An object with the single key "$": a JMESPath expression."""

    expression: Annotated[str, Field(alias="$")]


# Of what is remembered. Each may also be a reference that has to give such a text.
Short = Annotated[str, Field(min_length=1, max_length=500)]
Word = Annotated[str, Field(min_length=1, max_length=63)]
Long = Annotated[str, Field(min_length=1, max_length=1_000_000)]
Collection = Annotated[str, Field(pattern=r"\A[a-z][a-z0-9_.-]{0,62}\z")]
Attribute = Annotated[str, Field(max_length=500)]


class StepFile(Closed):
    arm: Name
    needs: list[Name] = []
    timeout_s: Annotated[int, Field(ge=1, le=86400)] = 60
    input: dict[str, Any]
    verdict: Literal["decides", "informs"] = "decides"
    """Of a judge step: whether its "fail" fails the task."""


class RepairFile(Closed):
    judge: Name
    redo: Name
    max: Annotated[int, Field(ge=1, le=MAX_REPAIRS)]


class ThingFile(Closed):
    """What a relationship begins or ends at."""

    type: Word | Reference
    name: Short | Reference


class RelationshipFile(Closed):
    from_: Annotated[ThingFile, Field(alias="from")]
    type: Word | Reference
    to: ThingFile


class MemoryFile(Closed):
    """What memory keeps of a task that succeeded. A reference may also give a whole list or object."""

    title: Short | Reference
    text: Long | Reference
    collection: Collection | Reference = "tasks"
    attributes: dict[Word, Attribute | Reference] | Reference = Field(default_factory=dict)
    entities: list[ThingFile | Reference] | Reference = Field(default_factory=list)
    relationships: list[RelationshipFile | Reference] | Reference = Field(default_factory=list)


class PlanFile(Closed):
    """What recipes and models have in common."""

    steps: Annotated[dict[Name, StepFile], Field(min_length=1, max_length=MAX_STEPS)]
    answer: Any
    repair: RepairFile | None = None


class RecipeFile(PlanFile):
    recipe: Annotated[str, Field(pattern=r"\A[a-z][a-z0-9_.-]{0,62}\z")]
    version: Annotated[int, Field(ge=1)]
    description: Annotated[str, Field(min_length=1)]
    input: dict[str, Any]
    deadline_s: Annotated[int, Field(ge=1, le=604800)]
    memory: MemoryFile | None = None
