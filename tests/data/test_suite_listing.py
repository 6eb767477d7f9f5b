"""`afa suites`."""

from __future__ import annotations

from pathlib import Path

from suite_files import ROWS, write

from afa_llm.config_loading import load_config
from afa_llm.data.suite_listing import listing


def test_the_listing_says_what_is_where(tmp_path: Path) -> None:
    write(tmp_path / "sst2" / "dev.jsonl", ROWS)
    write(tmp_path / "sst2" / "train.jsonl.gz", ROWS)
    lines = list(listing(load_config(None, [f"data.suites_dir={tmp_path}"]).data))
    assert lines[0] == f"local folder: {tmp_path}"
    at = lines.index("\nsuite:sst2  (binary)  local: dev, train; hub: SetFit/sst2 (train, dev, test)")
    assert lines[at + 2] == "  fields text, label, and if given tokens, token_labels"
    assert any(line.startswith("  fields text or Text, label or Sentiment, and if given id, pair_id") for line in lines)
    assert "\nsuite:checklist  (binary)  builtin" in lines
    assert "\nsuite:yelp_sentences  (binary)  local: not there, folder yelp_sentences" in lines
