"""The written form of plans, by people and models, as closed models.

`checks.py` checks what the values mean.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_STEPS = 200
MAX_REPAIRS = 5
"""Most repair rounds that a recipe may allow."""
Name = Annotated[str, Field(pattern=r"\A[a-z][a-z0-9_-]{0,62}\z")]


class Closed(BaseModel):
    """Refuses unknown fields and converted types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Reference(Closed):
    """An object with the single key "$": a JMESPath expression."""

    expression: Annotated[str, Field(alias="$")]


# What is written to memory. Each may also be a reference that gives such a string.
Short = Annotated[str, Field(min_length=1, max_length=500)]
Word = Annotated[str, Field(min_length=1, max_length=63)]
Long = Annotated[str, Field(min_length=1, max_length=1_000_000)]
Collection = Annotated[str, Field(pattern=r"\A[a-z][a-z0-9_.-]{0,62}\z")]
Attribute = Annotated[str, Field(max_length=500)]


class StepFile(Closed):
    """A step, under its name."""

    arm: Name
    needs: list[Name] = []
    timeout_s: Annotated[int, Field(ge=1, le=86400)] = 60
    input: dict[str, Any]
    verdict: Literal["decides", "informs"] = "decides"
    """For a judge step: whether its verdict "fail" fails the task."""


class RepairFile(Closed):
    """Which verdict is repaired, from which step on, and how often."""

    judge: Name
    redo: Name
    max: Annotated[int, Field(ge=1, le=MAX_REPAIRS)]


class EntityFile(Closed):
    """An entity of the knowledge graph, by type and name."""

    type: Word | Reference
    name: Short | Reference


class RelationshipFile(Closed):
    """A relationship between two entities."""

    from_: Annotated[EntityFile, Field(alias="from")]
    type: Word | Reference
    to: EntityFile


class MemoryFile(Closed):
    """What a task that succeeds writes to memory. A reference may also give a whole list or object."""

    title: Short | Reference
    text: Long | Reference
    collection: Collection | Reference = "tasks"
    attributes: dict[Word, Attribute | Reference] | Reference = Field(default_factory=dict)
    entities: list[EntityFile | Reference] | Reference = Field(default_factory=list)
    relationships: list[RelationshipFile | Reference] | Reference = Field(default_factory=list)


class PlanFile(Closed):
    """What recipes and plans by models have in common."""

    steps: Annotated[dict[Name, StepFile], Field(min_length=1, max_length=MAX_STEPS)]
    answer: Any
    repair: RepairFile | None = None


class RecipeFile(PlanFile):
    """A recipe."""

    recipe: Annotated[str, Field(pattern=r"\A[a-z][a-z0-9_.-]{0,62}\z")]
    version: Annotated[int, Field(ge=1)]
    description: Annotated[str, Field(min_length=1)]
    input: dict[str, Any]
    deadline_s: Annotated[int, Field(ge=1, le=604800)]
    memory: MemoryFile | None = None
