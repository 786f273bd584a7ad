"""What Schemathesis is told in tests/test_described.py: of the files that it sends, many are a sound."""

import io

import schemathesis
import soundfile
from hypothesis import strategies as st
from melodies import RATE, melody

_file = io.BytesIO()
soundfile.write(_file, melody(2, 2.0), RATE, format="FLAC")
schemathesis.openapi.format("binary", st.just(_file.getvalue()) | st.binary())
