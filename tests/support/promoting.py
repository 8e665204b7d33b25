"""Promoted columns of payloads that are given at once, chosen and extracted as sealing does it."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from shared.log.json_path import JsonPath
from shared.log.promoted_columns import JsonExtractor, PromotedColumn, Promoter


@dataclass(frozen=True)
class Promoted:
    """Promoted columns of a file: for each column its arrays, one for each chunk of payloads."""

    columns: tuple[PromotedColumn, ...] = ()
    arrays: tuple[tuple[pa.Array, ...], ...] = ()
    # Whether a later chunk did not agree with what the first ones chose.
    revised: bool = False


def promote(payloads: Sequence[pa.Array], declared: Sequence[JsonPath], *, sample: pa.Array | None = None) -> Promoted:
    """Promote the payloads of a file, which come in chunks."""
    with JsonExtractor() as extractor:
        promoter = Promoter(extractor, declared)
        arrays = [promoter.add(chunk, None if number else sample) for number, chunk in enumerate(payloads)]
        choice = promoter.revised()
        if choice is not None:
            promoter = Promoter(extractor, declared, choice)
            arrays = [promoter.add(chunk) for chunk in payloads]
            assert promoter.revised() is None, "the second choice is right"
        assert None not in arrays
        by_column = zip(*(chunk for chunk in arrays if chunk is not None), strict=True)
        return Promoted(promoter.columns, tuple(by_column), choice is not None)
