"""Every error of OctoLLM, under one root. A class's docstring is its default message.

What the user sees is the message; the cause stays chained (`raise ... from error`) and goes to the log, once,
where the error is handled.
"""

from typing import ClassVar, Literal

NEEDS_PERSON = "needs_person_"
"""With this begin the codes of `NeedsPersonError`."""


class OctoError(Exception):
    """Something in OctoLLM went wrong."""

    def __init__(self, message: str | None = None) -> None:
        """`message`: one sentence for people that says what to do; without it the docstring."""
        super().__init__(message or (type(self).__doc__ or "").strip().partition("\n")[0])

    @property
    def message(self) -> str:
        """The sentence for people."""
        return str(self)


class SettingsError(OctoError):
    """The settings are wrong."""


class TopologyError(OctoError):
    """The topology file is wrong."""


class WebhooksError(OctoError):
    """The file of webhook sources is wrong, or a source cannot be used."""


class CredentialError(OctoError):
    """The credential is missing or not accepted."""

    def __init__(
        self, code: Literal["missing_credential", "invalid_credential", "expired_credential"], message: str
    ) -> None:
        """`code`: of the problem that the caller gets."""
        super().__init__(message)
        self.code = code


class ScopeError(OctoError):
    """The credential does not allow this."""


class ForeignHostError(OctoError):
    """The request names a host that is not this API's."""


class ApiKeyError(OctoError):
    """An API key cannot be used, changed or found."""


class CallbacksError(OctoError):
    """The file of callbacks is wrong, or one of its secrets cannot be used."""


class CallbackSignatureError(OctoError):
    """A received callback is not signed by any of the secrets, or is too old."""


class SchedulesError(OctoError):
    """The file of schedules is wrong."""


class StartError(OctoError):
    """A part of the stack did not start."""


class ApiError(OctoError):
    """The reflex refused or could not be reached."""


class UnknownError(ApiError):
    """There is no such task."""


class RefusedError(ApiError):
    """The request was refused; sending it again cannot help."""

    def __init__(self, message: str, *, status: int, code: str, field: str | None) -> None:
        """`status`: of HTTP; `code`: the end of the problem's `type`; `field`: what to correct, if named."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field


class UnauthenticatedError(RefusedError):
    """The credential is missing, wrong or expired."""


class ForbiddenError(RefusedError):
    """The credential does not allow this."""


class BusyError(ApiError):
    """The other side cannot answer right now; try again later."""

    def __init__(self, message: str, *, retry_after_s: float | None) -> None:
        """`retry_after_s`: how long the other side asks to wait, where it says so."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnreachableError(ApiError):
    """Nobody answers at that address."""


class UnfinishedError(ApiError):
    """The task has not ended in time; it goes on."""


class ProfileError(OctoError):
    """The profile file cannot be used."""


class ParameterError(OctoError):
    """A parameter of a request cannot be used."""

    def __init__(self, field: str, message: str) -> None:
        """`field`: the parameter's name."""
        super().__init__(message)
        self.field = field


class AbsentError(OctoError):
    """There is nothing here."""


class TooSlowError(OctoError):
    """The question took too long to answer; ask for less."""


class StoreUnavailableError(OctoError):
    """A store cannot be reached right now."""


class CredentialsUnavailableError(StoreUnavailableError):
    """Credentials cannot be checked right now; try again later."""


class ConflictError(StoreUnavailableError):
    """Another process has just changed the same rows; try again."""


class StatementTimeoutError(OctoError):
    """A statement did not end within its time limit although Postgres answers others.

    Waiting longer may not help."""


class StoreRefusedError(OctoError):
    """A store refuses this request for what it asks; asking again cannot help."""


class WorkerError(OctoError):
    """A part of a worker ended that has to go on."""


class SchemaError(OctoError):
    """This is not a JSON Schema that can be used."""


class RecipeError(OctoError):
    """A recipe is wrong, or one of its references leads nowhere."""


class InvalidInputError(OctoError):
    """The input does not fit the recipe."""


class PatchError(OctoError):
    """A patch cannot be applied."""


class EmbeddingError(OctoError):
    """Texts cannot be embedded."""


class VectorStoreError(OctoError):
    """The vector store cannot be used as it is."""


class ContractError(OctoError):
    """A message does not keep its contract."""

    def __init__(self, reason: Literal["malformed", "schema"], message: str) -> None:
        """`malformed`: no strict JSON at all; `schema`: JSON, but not by the event's schema."""
        super().__init__(message)
        self.reason: Literal["malformed", "schema"] = reason


class StepError(OctoError):
    """A step did not work."""

    transient: ClassVar[bool]

    def __init__(self, code: str, message: str) -> None:
        """`code`: stable name for programs, `[a-z][a-z0-9_]*`; `message`: for people, never a secret."""
        super().__init__(message)
        self.code = code


class TransientError(StepError):
    """A step may work if it is tried again."""

    transient = True

    def __init__(self, code: str, message: str, retry_after_s: float | None = None) -> None:
        """`retry_after_s`: the `Retry-After` of the server that refused, in seconds; None if it sent none."""
        super().__init__(code, message)
        self.retry_after_s = retry_after_s


class NeedsPersonError(StepError):
    """A step works again once a person has put something right.

    Failing it would be wrong, trying it at once costs.
    """

    transient = False

    def __init__(self, code: str, message: str) -> None:
        """`message` says what to fix, and where.

        The class stands in front of the code, so that it can be seen wherever the code goes.
        """
        super().__init__(f"{NEEDS_PERSON}{code}", message)


class PermanentError(StepError):
    """Trying the step again cannot help."""

    transient = False
