"""Files that requests bring."""

from typing import Annotated

from fastapi import UploadFile
from pydantic import WithJsonSchema
from starlette.datastructures import UploadFile as StarletteUploadFile

File = Annotated[UploadFile, WithJsonSchema({"type": "string", "format": "binary"})]


def file_name(upload: StarletteUploadFile) -> str:
    """The upload's name without the folders that some clients send along."""
    return (upload.filename or "").replace("\\", "/").rpartition("/")[2] or "upload"
