"""Encoded images in a column of a Parquet file, with their classes in another; by pyarrow, an extra."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import Any, BinaryIO

from bnprobe.errors import BadImages
from bnprobe.files import arrow
from bnprobe.models.image_folder import LARGEST
from bnprobe.models.packed_images import NO_LABELS, Fields, PackedImages, Span, demand_class, packed

ROWS = 8
"""Rows that are in RAM at a time: a file may say one large value many times in few bytes."""

MOST_TIMES, SMALL = 4, 2**26
"""Encoded images may come to so many times the size of their file, or to 64 MB: they hardly compress, but may repeat."""

LARGEST_GROUP = 2**33
"""Bytes that the columns of one row group may have when they are unpacked: 8 GB."""


def needed() -> Any:
    """pyarrow.parquet. Raises BadImages where it is not installed."""
    return arrow.needed("Parquet files", module="pyarrow.parquet", raises=BadImages)


def parquet_images(file: BinaryIO, place: str, fields: Fields, spool: BinaryIO) -> PackedImages:
    """The images of an opened Parquet file, copied to `spool`, from where they can be read in any order.

    Raises BadImages for what is no Parquet file, was cut, or has no column of images.
    """
    parquet = needed()
    try:
        table = parquet.ParquetFile(file)
        image, label = _columns(table, fields)
        spans, labels = _copied(table, image, label, spool, max(MOST_TIMES * file.seek(0, 2), SMALL))
    except (ValueError, OSError, import_module("pyarrow").ArrowException) as error:
        reason = " ".join(str(error).split())[:120]
        raise BadImages(
            f"truncated, or no Parquet file ({reason}). Write it again, or download it again."
        ) from None
    if not spans:
        raise BadImages("it has no rows. Leave it out.")
    names = [f"row {i}" for i in range(len(spans))]
    source = packed(place, spool, names, spans, None if label is None else labels)
    return replace(source, classes=_class_names(table, label, labels))


def _columns(table: Any, fields: Fields) -> tuple[str, str | None]:
    """The columns of images and of classes."""
    types = import_module("pyarrow.types")
    schema = table.schema_arrow
    encoded = [field.name for field in schema if _bytes_of(field.type, types)]
    columns = (
        f"Its columns are {', '.join(f'{field.name} ({field.type})'[:60] for field in list(schema)[:12])}."
    )
    image = fields.image or ("image" if "image" in encoded else encoded[0] if len(encoded) == 1 else None)
    if image is None or image not in encoded:
        what = (
            f"column {image} holds no encoded images"
            if image in schema.names
            else f"no column {image or 'of encoded images'}"
        )
        raise BadImages(f"{what}. {columns} Name one of bytes with --image-field.")
    label = fields.label or ("label" if "label" in schema.names else NO_LABELS)
    if label == NO_LABELS:
        return image, None
    if label not in schema.names or not types.is_integer(schema.field(label).type):
        raise BadImages(
            f"no column {label} of whole numbers. {columns} Name one with --label-field, or leave classes out with "
            f"--label-field {NO_LABELS}."
        )
    return image, label


def _bytes_of(kind: Any, types: Any) -> bool:
    """Whether a column of this type holds files: bytes, or, as datasets of Hugging Face have them, bytes and a path."""
    if types.is_struct(kind):
        return any(field.name == "bytes" and _bytes_of(field.type, types) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _copied(
    table: Any, image: str, label: str | None, spool: BinaryIO, most: int
) -> tuple[list[Span], list[int]]:
    """Where the images lie in `spool`, and their classes. Raises BadImages where they come to more than `most` bytes."""
    spans: list[Span] = []
    labels: list[int] = []
    at = 0
    for content, number in _rows(table, image, label):
        if not content:
            spans.append(Span(0, 0, "no image in this row"))
        elif len(content) > LARGEST:
            spans.append(Span(0, len(content)))
        else:
            spans.append(Span(at, len(content)))
            at += spool.write(content)
        if at > most:
            raise BadImages(
                f"its images come to more than {most:,} bytes, far more than the file: damaged, or made to fill a disk. "
                "Write it again."
            )
        if label is not None:
            if number is None:
                raise BadImages(
                    f"row {len(labels):,} has no {label}. Give each its class, or leave classes out with "
                    f"--label-field {NO_LABELS}."
                )
            labels.append(demand_class(number, f"row {len(labels):,}"))
    spool.flush()
    return spans, labels


def _rows(table: Any, image: str, label: str | None) -> Iterator[tuple[bytes | None, int | None]]:
    columns = [image] if label is None else [image, label]
    for i in range(table.num_row_groups):
        size = table.metadata.row_group(i).total_byte_size
        if size > LARGEST_GROUP:
            raise BadImages(f"a row group of {size:,} bytes. Write smaller row groups.")
    for batch in table.iter_batches(batch_size=ROWS, columns=columns):
        held = batch.column(image)
        contents = held.field("bytes") if hasattr(held, "field") else held
        numbers = batch.column(label) if label is not None else [None] * len(contents)
        for content, number in zip(contents, numbers, strict=True):
            yield content.as_py(), None if number is None else number.as_py()


def _class_names(table: Any, label: str | None, labels: list[int]) -> tuple[str, ...]:
    """As datasets of Hugging Face write them beside the columns; none where they do not fit."""
    with suppress(KeyError, TypeError, ValueError):
        features = json.loads(table.schema_arrow.metadata[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
        if (
            isinstance(names, list)
            and all(isinstance(name, str) for name in names)
            and max(labels) < len(names)
        ):
            return tuple(names)
    return ()
