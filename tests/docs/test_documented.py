"""What pages say commands print is what they print."""

from __future__ import annotations

import pytest
from documented import ROOT, Block, all_blocks, blocks, mismatch, pages, run


@pytest.mark.parametrize("block", list(all_blocks()), ids=lambda b: b.name)
def test_a_documented_command_prints_what_the_page_says(block: Block) -> None:
    assert mismatch(block, run(block.argv)) == "", (
        f"python tests/docs/documented.py {block.page.relative_to(ROOT)} writes it anew"
    )


def test_every_page_has_commands() -> None:
    assert all(blocks(page) for page in pages())


def test_the_comparison_can_fail() -> None:
    block = Block(ROOT / "x.md", 0, "hwsim x", "a 1.00 ms\n…\nc 3\n")
    assert mismatch(block, "a 1.05 ms\nb\nc 3\nd\n") == "the output goes on: 'd'"
    assert mismatch(block, "a 1.05 ms\nb\nc 3\n") == ""
    assert "number 1.00, now 1.20" in mismatch(block, "a 1.20 ms\nb\nc 3\n")
    assert "not in the output" in mismatch(block, "a 1.00 ms\nb\n")
    assert "now 'b'" in mismatch(Block(ROOT / "x.md", 0, "hwsim x", "a\n"), "b\n")
