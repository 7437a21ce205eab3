"""What requests may say. Whatever is not listed is refused, and every number has an end."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from diffutron.generation.policies import OrderName

MAX_CHARACTERS = 200_000
MAX_NEW_TOKENS = 1024
MAX_STEPS = 2048
MAX_SAMPLES = 8
MAX_TEXTS = 32


def _whole(text: str) -> str:
    if any("\ud800" <= each <= "\udfff" for each in text):
        raise ValueError("holds half a character (a lone surrogate)")
    return text


Text = Annotated[str, AfterValidator(_whole), Field(max_length=MAX_CHARACTERS)]
Line = Annotated[str, AfterValidator(_whole), Field(max_length=200)]
Choices = Annotated[list[Line], Field(min_length=1, max_length=64)]
GapNumber = Annotated[str, Field(pattern=r"^[1-9][0-9]?$")]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Request(BaseModel):
    """A request body."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class SamplerFields(Request):
    """How a text is denoised; what is left out is the server's default."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    temperature: Annotated[Number, Field(ge=0, le=10)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """Denoiser calls; one a token unless given."""
    block_length: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] | None = None
    order: OrderName | None = None
    repetition_penalty: Annotated[Number, Field(ge=1, le=10)] | None = None
    no_repeat_ngram: Annotated[int, Field(ge=0, le=16)] | None = None
    end_penalty: Annotated[Number, Field(ge=-100, le=100)] | None = None
    """Nats taken from the end of a text; below 0, given."""
    well_formed: Annotated[Number, Field(ge=0, le=100)] | None = None
    guidance: Annotated[Number, Field(ge=0, le=10)] | None = None

    def sampler(self) -> dict[str, Any]:
        """The fields of the sampler's settings that were given."""
        names = set(SamplerFields.model_fields) - {"seed"}
        found = self.model_dump(include=names)
        return {name: value for name, value in found.items() if value is not None}


class OpenAIFields(SamplerFields):
    """What OpenAI's clients send beside it: taken where it can be, refused where it would change the text."""

    model: Line | None = None
    n: int = Field(default=1, ge=1, le=MAX_SAMPLES)
    stream: bool = False
    diffusing: bool = False
    """Stream the whole canvas after every step, instead of text that only grows."""
    stop: Line | Annotated[list[Line], Field(max_length=8)] | None = None
    user: Line | None = None
    stream_options: dict[Line, bool] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[Line, float], Field(max_length=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_nothing(cls, given: Any) -> Any:
        """Clients write out what they leave to the server."""
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given

    @property
    def stops(self) -> list[str]:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [each for each in stops if each]

    @model_validator(mode="after")
    def _streams_what_diffuses(self) -> OpenAIFields:
        if self.diffusing and not self.stream:
            raise ValueError("diffusing needs stream: true")
        if self.diffusing and (self.stops or self.stream_options):
            raise ValueError("diffusing shows whole canvases, and knows no stop and no stream_options")
        return self


class CompletionRequest(OpenAIFields):
    """``/v1/completions``: a continuation, or what stands between ``prompt`` and ``suffix``."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)] = ""
    suffix: Text | None = None
    max_tokens: int = Field(default=64, ge=1, le=MAX_NEW_TOKENS)
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    logprobs: None = None

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class FimRequest(OpenAIFields):
    """``/v1/fim/completions``: what stands between ``prompt`` and ``suffix``."""

    prompt: Text
    suffix: Text = ""
    max_tokens: int = Field(default=16, ge=1, le=MAX_NEW_TOKENS)


class Part(Request):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class Message(Request):
    """A turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(min_length=1, max_length=64)]
    name: Line | None = None

    @property
    def as_turn(self) -> dict[str, str]:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(OpenAIFields):
    """``/v1/chat/completions``: an answer. Templates come from the model, never from a request."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    max_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: Literal[False] | None = None

    @property
    def room(self) -> int:
        return self.max_completion_tokens or self.max_tokens or 64


class InfillRequest(SamplerFields):
    """``/v1/infill``: a text with ``[MASK]``, ``[MASK:8]`` for eight pieces, ``[MASK:?]`` for as many as suit."""

    text: Text
    n: int = Field(default=1, ge=1, le=MAX_SAMPLES)
    max_gap: int = Field(default=16, ge=1, le=64)
    choices: Annotated[dict[GapNumber, Choices], Field(max_length=32)] = {}
    """Of each gap by its number from 1, what may stand there."""
    stream: bool = False
    """The whole canvas after every step."""


class FillRequest(Request):
    """``/v1/fill-mask``: the most probable ways to fill each ``[MASK]`` together."""

    text: Text
    top_k: int = Field(default=5, ge=1, le=50)
    targets: Annotated[list[Line], Field(min_length=1, max_length=64)] | None = None


class PerplexityRequest(Request):
    """``/v1/perplexity``: how surprising texts are."""

    text: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    mask_rate: Annotated[Number, Field(gt=0, le=1)] = 0.15
    draws: int = Field(default=8, ge=2, le=64, multiple_of=2)
    seed: int = Field(default=0, ge=0, lt=2**63)
    words: bool = False
    """Also each word's surprise when it alone is hidden, piece by piece; for one text of at most 512 tokens."""


class EmbeddingsRequest(Request):
    """``/v1/embeddings``: the mean of the last layer over a text's pieces. Experimental."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    model: Line | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None
    user: Line | None = None


class TokenizeRequest(Request):
    """``/tokenize``."""

    text: Text


class DetokenizeRequest(Request):
    """``/detokenize``."""

    tokens: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=MAX_CHARACTERS)]
