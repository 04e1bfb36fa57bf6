"""The journal told in pages: numbered from 1, each entry under the hash that the file has for it, found without reading what is before."""

import json

import pytest

from penstock.prove.simulated.house import MemoryJournal
from penstock.signer.index import Index
from penstock.signer.journal import FILE, PAGE_ENTRIES, START, FileJournal, JournalBroken, entry_of, page


def entry(number):
    return {"kind": "death", "at_ms": number, "attempt_id": number, "proof": "x" * (number % 7)}


def filled(folder, count):
    journal = FileJournal(folder)
    list(journal.read())
    for start in range(0, count, 97):
        journal.append([entry(number) for number in range(start + 1, min(start + 97, count) + 1)])
    return journal


def pages(journal, after=0):
    """From the nearest mark of an index in memory on, each under number, hash and entry."""
    index, found = Index(None, journal), []
    index.catch_up()
    while some := index.page(after):
        found += [(place.number, place.hash, entry_of(place, text)) for place, text in some]
        after = some[-1][0].number
    return found


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1300])
@pytest.mark.parametrize("reopened", [False, True])
def test_pages_give_every_entry_once_in_order_with_its_hash(tmp_path, count, reopened):
    journal = filled(tmp_path, count)
    if reopened:
        journal.close()
        journal = FileJournal(tmp_path)
        list(journal.read())
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    wanted = [(number, line["hash"], line["entry"]) for number, line in enumerate(lines, start=1)]
    assert pages(journal) == wanted
    assert [len(page(journal, START, after)) for after in (0, count)] == [min(count, PAGE_ENTRIES), 0]
    for after in (1, 254, 255, 256, 257, 700):
        assert pages(journal, after) == wanted[after:]
    journal.close()


def test_a_journal_in_memory_tells_the_same(tmp_path):
    journal = filled(tmp_path, 600)
    other = MemoryJournal()
    other.append([entry(number) for number in range(1, 601)])
    assert page(other, START, 400) == page(journal, START, 400)
    journal.close()


def test_a_page_of_a_file_that_was_altered_since_it_was_read_is_refused(tmp_path):
    journal = filled(tmp_path, 300)
    text = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(text.replace('"attempt_id":299', '"attempt_id":298'))
    with pytest.raises(JournalBroken, match="line 299"):
        page(journal, START, 290)
    journal.close()


def test_a_journal_that_was_not_read_tells_nothing(tmp_path):
    journal = FileJournal(tmp_path)
    with pytest.raises(JournalBroken, match="has not been read"):
        page(journal, START, 0)
    journal.close()
