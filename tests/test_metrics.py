"""`/metrics`: what a server counts, in a form that Prometheus reads, and nothing that is private."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from server import Server


def test_requests_stages_matches_errors_and_sizes_are_counted(library: Path, music: Path) -> None:
    with Server(library=library) as client:
        for name in ("clip.wav", "unknown.wav", "silent.wav", "text.mp3"):
            client.post("/v1/query", files={"clip": (music / name).open("rb")})
        client.get("/v1/recordings/secret-id")
        client.get("/nowhere/secret-path")
        response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert samples["earmark_request_seconds_count", "/v1/query", "200", "POST"] == 2
    assert samples["earmark_request_seconds_count", "/v1/query", "422", "POST"] == 1
    assert samples["earmark_request_seconds_count", "/v1/query", "415", "POST"] == 1
    assert samples["earmark_request_seconds_count", "404", "none", "other"] == 1
    assert samples["earmark_stage_seconds_count", "decode"] == 4
    assert samples["earmark_stage_seconds_count", "search"] == 2
    assert samples["earmark_matches_total", "match"] == 1
    assert samples["earmark_clip_errors_total", "silent"] == 1
    assert samples["earmark_clip_errors_total", "undecodable"] == 1
    assert samples["earmark_recordings",] == 4
    assert samples["earmark_recorded_seconds",] == 80
    assert samples["earmark_scans_unfinished",] == 0
    assert samples["earmark_ingests_unfinished",] == 0
    assert samples["earmark_requests_taken",] == 0
    assert "secret" not in response.text and "clip.wav" not in response.text
