"""What requests bring: files, forms, and the cursor of a page."""

from typing import Annotated, Any

from fastapi import Query, UploadFile
from pydantic import BaseModel, WithJsonSchema
from starlette.datastructures import UploadFile as StarletteUploadFile

from service.query.recording_fields import CURSOR

_LONGEST_FIELD = 2**17  # bytes of a field that is no file, which is held in memory

File = Annotated[UploadFile, WithJsonSchema({"type": "string", "format": "binary"})]

Cursor = Annotated[
    str | None, Query(pattern=CURSOR, description="`next_cursor` of the page before.")
]


def file_name(upload: StarletteUploadFile) -> str:
    """The upload's name without the folders that some clients send along."""
    return (upload.filename or "").replace("\\", "/").rpartition("/")[2] or "upload"


def form_limits(form: type[BaseModel]) -> Any:
    """How many files and fields a form's body may have: one for each of the form's."""
    files = sum("UploadFile" in str(field.annotation) for field in form.model_fields.values())
    return {
        "max_files": files,
        "max_fields": len(form.model_fields) - files + 1,  # a misspelt one is told of by its name
        "max_part_size": _LONGEST_FIELD,
    }
