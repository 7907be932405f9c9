"""croissant.json: a machine-readable description of a build (MLCommons Croissant 1.0, JSON-LD)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from dataprep.contract import SHARD_SCHEMA
from dataprep.report.card import licence

CROISSANT_FILE = "croissant.json"

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "conformsTo": "dct:conformsTo",
    "dct": "http://purl.org/dc/terms/",
    "recordSet": "cr:recordSet",
    "field": "cr:field",
    "fileSet": "cr:fileSet",
    "fileObject": "cr:fileObject",
    "includes": "cr:includes",
    "source": "cr:source",
    "extract": "cr:extract",
    "column": "cr:column",
    "repeated": "cr:repeated",
    "subField": "cr:subField",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
}
_TYPES = {"string": "sc:Text", "int32": "sc:Integer", "bool": "sc:Boolean"}


def croissant(manifest: Mapping[str, Any], schema: pa.Schema = SHARD_SCHEMA) -> dict[str, Any]:
    """The content of a manifest as a Croissant data set: shards with checksums, and the columns of `schema` with types."""
    shards = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    files = [
        {
            "@type": "cr:FileObject",
            "@id": shard["file"],
            "name": shard["file"],
            "contentUrl": shard["file"],
            "contentSize": f"{shard['bytes']} B",
            "encodingFormat": "application/vnd.apache.arrow.stream",
            "sha256": shard["sha256"],
        }
        for shard in shards
    ]
    sets = [
        {
            "@type": "cr:FileSet",
            "@id": split,
            "name": split,
            "encodingFormat": "application/vnd.apache.arrow.stream",
            "includes": f"{split}/*.arrow",
        }
        for split in manifest["splits"]
    ]
    records = [
        {"@type": "cr:RecordSet", "@id": f"{split}-rows", "name": f"{split}-rows", "field": _fields(split, schema)}
        for split in manifest["splits"]
    ]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": manifest["name"],
        "description": f"{manifest['rows']:,} conversations in the chat format {manifest['template']['name']}, made by dataprep.",
        "version": manifest["version"],
        "license": licence(manifest),
        "distribution": [*files, *sets],
        "recordSet": records,
    }


def _fields(split: str, schema: pa.Schema) -> list[dict[str, Any]]:
    return [_field(f"{split}-rows/{column.name}", column.type, split, column.name) for column in schema]


def _field(name: str, kind: pa.DataType, split: str, column: str) -> dict[str, Any]:
    repeated = hasattr(kind, "value_type")
    kind = kind.value_type if repeated else kind
    field: dict[str, Any] = {"@type": "cr:Field", "@id": name, "name": name.rsplit("/", 1)[-1]}
    if str(kind) in _TYPES:
        field["dataType"] = _TYPES[str(kind)]
    else:
        field["subField"] = [_field(f"{name}/{part.name}", part.type, split, column) for part in kind]
    return field | {"repeated": repeated, "source": {"fileSet": {"@id": split}, "extract": {"column": column}}}
