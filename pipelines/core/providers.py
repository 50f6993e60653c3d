"""Which provider answers, by its name in params.yaml, behind the one door."""

from pipelines.core.encoders import TextEncoder
from pipelines.core.ledger import Ledger, ledger_file
from pipelines.core.llm import Door
from pipelines.core.params import Params
from pipelines.core.params import Provider as ProviderName
from pipelines.core.questions import Provider


def ledger_of(params: Params) -> Ledger:
    """The one ledger, in the cache folder."""
    return Ledger(ledger_file(params.cache.folder()))


def door_of(name: ProviderName, params: Params, encoder: TextEncoder) -> Door:
    """The door to the provider `name`; `encoder` is what `extractive` compares sentences by."""
    ledger = ledger_of(params)
    provider: Provider
    if name == "openai":
        from pipelines.core.openai_api.provider import OpenAIProvider

        provider = OpenAIProvider(params.llm, ledger)
    else:
        from pipelines.core.extractive.provider import ExtractiveProvider

        provider = ExtractiveProvider(encoder, params.summarize.words, params.tag.similarity)
    return Door(provider, ledger, params.llm.attempts)
