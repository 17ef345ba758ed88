"""Blind sheets: what goes out tells nothing, what comes back is checked, and people are counted like a metric."""

import csv
import io
import json
import random
import re
from html.parser import HTMLParser

import pytest

from tasks.contracts.errors import EvaluationError
from tasks.contracts.evaluation_config import EvaluationSection
from tasks.evaluation.ratings.count import agreement, kappa, people_s_preference
from tasks.evaluation.ratings.csv_sheet import COLUMNS, csv_sheet, guarded, read_csv_sheet
from tasks.evaluation.ratings.kept import checked_person, gather, keep_ratings
from tasks.evaluation.ratings.page_sheet import page_sheet, read_saved_page
from tasks.evaluation.ratings.sheet import draw_sheet, find_key, keep_key, shown
from tasks.evaluation.ratings.sheet_rating import FilledIn

HOSTILE = (
    '=HYPERLINK("http://evil.example","x")\n"quoted", \'too\'; <script>alert(1)</script></pre>{{ 7 * 7 }}\r\n'
    "\x00\x1b[31m \u202egnp.exe\t+1"
)
ABOUT = ("assistant", 3, "d" * 64, "version 2")
EVALUATION = EvaluationSection(resamples=200)


def pairs_of(count=12):
    return [
        shown(f"{n:064x}", f"What does function {n} do?", f"The candidate's answer {n}, at length.", f"Other {n}.")
        for n in range(count)
    ]


class Sheets:
    """Sheets in a folder, filled in by a function of a row's texts."""

    def __init__(self, folder):
        self.folder, self.home = folder, folder / "ratings"

    def draw(self, pairs=None, most=50):
        key, texts = draw_sheet(pairs or pairs_of(), most, ABOUT)
        keep_key(key, self.home)
        return key, texts

    def find(self, sheet):
        return find_key(sheet, self.home)

    def filled(self, key, texts, choose, name="sheet.csv", change=lambda rows: rows, delimiter=","):
        rows = list(csv.DictReader(io.StringIO(csv_sheet(key, texts).decode("utf-8-sig"), newline="")))
        for row in rows:
            row["preference"] = choose(row)
        return self.written(change(rows), name, delimiter)

    def written(self, rows, name="sheet.csv", delimiter=","):
        with (self.folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
        return self.folder / name

    def read(self, path):
        return read_csv_sheet(path, self.find)


@pytest.fixture
def sheets(tmp_path):
    return Sheets(tmp_path)


def likes_the_longer(row):
    return "A" if len(row["answer A"]) > len(row["answer B"]) else "B"


def test_what_is_filled_in_comes_back_as_whose_answer_is_preferred(sheets):
    key, texts = sheets.draw()
    again, ratings = sheets.read(sheets.filled(key, texts, likes_the_longer))
    assert again == key
    assert {rating.row for rating in ratings} == {f"{n:064x}" for n in range(12)}
    assert {rating.preferred for rating in ratings} == {"candidate"}
    _, ratings = sheets.read(sheets.filled(key, texts, lambda row: "TIE " if row["row"] == "3" else ""))
    assert ratings == [FilledIn(key.rows[2].row, "tie", "")]


def test_the_order_differs_from_row_to_row_and_the_sheet_does_not_tell_it(sheets):
    key, texts = sheets.draw(pairs_of(60), 60)
    firsts = [row.first for row in key.rows]
    assert 15 <= firsts.count("candidate") <= 45
    text = csv_sheet(key, texts).decode("utf-8-sig")
    assert not re.search("version|assistant|champion|base|d{8}", text)
    assert "candidate" not in text.replace("The candidate's answer", "")
    assert str(key.seed) not in text and key.rows[0].row not in text
    other, _ = sheets.draw(pairs_of(60), 60)
    assert other.sheet != key.sheet and [row.first for row in other.rows] != firsts
    guess = random.Random(key.sheet)
    assert [guess.choice(("candidate", "baseline")) for _ in firsts] != firsts


def test_no_more_rows_than_asked_for_and_those_that_are_alike_are_not_asked(sheets):
    pairs = [shown(f"{n:064x}", "p", "same", "same " if n < 4 else "other") for n in range(10)]
    key, texts = sheets.draw(pairs, 10)
    assert (len(key.rows), len(texts), len(key.identical)) == (6, 6, 4)
    assert set(key.identical) == {f"{n:064x}" for n in range(4)}
    key, texts = sheets.draw(pairs_of(), 5)
    assert len(key.rows) == len(texts) == 5
    with pytest.raises(EvaluationError, match="both answer all 4 rows alike"):
        sheets.draw(pairs[:4])


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "'", " =", "1", "|", "%"])
def test_no_cell_is_a_formula_whatever_a_model_says(start, sheets):
    text = f"{start}cmd|' /C calc'!A1 and more words that make it long"
    key, texts = sheets.draw([shown("a" * 64, text, text + "!", text + "?")])
    rows = list(csv.DictReader(io.StringIO(csv_sheet(key, texts).decode("utf-8-sig"), newline="")))
    assert all(rows[0][name].startswith("'") for name in COLUMNS[2:5])
    assert sheets.read(sheets.filled(key, texts, likes_the_longer))[1][0].preferred in ("candidate", "baseline")


@pytest.mark.parametrize("text", ["1.0", "007", "TRUE", "May 5", "1e5", "12:30", "", "September 30, 2024 10:00 AM"])
def test_what_a_spreadsheet_would_take_for_a_number_or_a_date_stays_text(text):
    assert guarded(text) == f"'{text}"
    assert guarded("A sentence of a model is left as it is.") == "A sentence of a model is left as it is."


def test_hostile_text_survives_the_way_out_and_back(sheets):
    key, texts = sheets.draw([shown("a" * 64, HOSTILE, HOSTILE + " longer", HOSTILE)])
    content = csv_sheet(key, texts)
    assert content.startswith(b"\xef\xbb\xbf") and not re.search(rb"[\x00\x1b]", content)
    assert "\u202e" not in content.decode("utf-8-sig")
    _, ratings = sheets.read(sheets.filled(key, texts, lambda _: "A"))
    assert ratings[0].preferred == key.rows[0].first


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_sheet_that_a_spreadsheet_saved_in_its_own_way_is_read(delimiter, sheets):
    """Excel saves with the list separator of the country and CR LF in cells; Google's drops the apostrophe."""
    pairs = [shown("a" * 64, "one\ntwo", "- a list\n- of, things; here", "short"), *pairs_of(2)]
    key, texts = sheets.draw(pairs)

    def as_saved(rows):
        for row in rows:
            for name in COLUMNS[2:5]:
                row[name] = row[name].removeprefix("'").replace("\n", "\r\n")
        return [*rows, dict.fromkeys(COLUMNS, " ")][::-1]

    path = sheets.filled(key, texts, likes_the_longer, change=as_saved, delimiter=delimiter)
    assert len(sheets.read(path)[1]) == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"preference": "C"}, r"line \d+, column 'preference' is 'C'; expected A, B, tie or nothing"),
        ({"answer A": "another"}, r"line \d+, column 'answer A' is 'another'; expected the text of row 2"),
        ({"prompt": ""}, r"line \d+, column 'prompt' is ''; expected the text of row 2"),
        ({"row": "13"}, r"column 'row' is '13'; expected a number from 1 to 12, each once"),
        ({"row": "1"}, r"column 'row' is '1'; expected a number from 1 to 12, each once"),
        ({"row": "²"}, r"column 'row' is '²'"),
        ({"sheet": "0" * 16}, r"column 'sheet' is '0{16}'; expected the id of one sheet"),
        ({"sheet": "../../../etc"}, r"column 'sheet' is '\.\./"),
        ({"sheet": ""}, r"column 'sheet' is ''"),
    ],
)
def test_a_changed_sheet_is_refused_with_line_and_column(change, sentence, sheets):
    key, texts = sheets.draw()
    path = sheets.filled(key, texts, lambda _: "A", change=lambda rows: [rows[0], rows[1] | change, *rows[2:]])
    with pytest.raises(EvaluationError, match=rf"^sheet\.csv, .*{sentence}"):
        sheets.read(path)


def test_the_named_line_is_that_of_the_file_also_after_answers_of_several_lines(sheets):
    key, texts = sheets.draw([shown(f"{n:064x}", "one\ntwo\nthree", f"a{n}", f"b{n}") for n in range(3)])
    path = sheets.filled(key, texts, lambda row: "C" if row["row"] == "3" else "A")
    lines = path.read_text().split("\n")
    with pytest.raises(EvaluationError, match=r"line (\d+), column 'preference'") as caught:
        sheets.read(path)
    named = int(re.search(r"line (\d+)", str(caught.value))[1])
    assert lines[named - 1].startswith(f"{key.sheet},3,")


def test_answers_that_changed_places_are_noticed(sheets):
    key, texts = sheets.draw()
    swapped = lambda rows: [row | {"answer A": row["answer B"], "answer B": row["answer A"]} for row in rows]  # noqa: E731
    with pytest.raises(EvaluationError, match="column 'answer A'"):
        sheets.read(sheets.filled(key, texts, lambda _: "A", change=swapped))


def test_rows_of_two_sheets_in_one_file_are_refused(sheets):
    key, texts = sheets.draw()
    other, other_texts = sheets.draw()
    more = list(csv.DictReader(io.StringIO(csv_sheet(other, other_texts).decode("utf-8-sig"), newline="")))
    with pytest.raises(EvaluationError, match="column 'sheet'"):
        sheets.read(sheets.filled(key, texts, lambda _: "A", change=lambda rows: [*rows, more[3]]))


def test_rows_may_be_missing_and_in_another_order(sheets):
    key, texts = sheets.draw()
    path = sheets.filled(key, texts, likes_the_longer, change=lambda rows: rows[:4:-1])
    assert len(sheets.read(path)[1]) == 7


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "line 1 has no column|holds no row"),
        (b"sheet,row\n1,2\n", "line 1 has no column 'prompt'"),
        (",".join(COLUMNS).encode() + b"\n", "holds no row"),
        ("sheet,rów".encode("utf-16"), "is not UTF-8; save it as CSV UTF-8"),
        (",".join(COLUMNS).encode() + b'\n"a"b,"\n', "line 2 is no CSV"),
        (",".join([*COLUMNS, "row"]).encode() + b"\n", "line 1 has no column 'row'"),
    ],
)
def test_what_is_no_sheet_is_said(content, sentence, sheets):
    path = sheets.folder / "sheet.csv"
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match=sentence):
        sheets.read(path)
    with pytest.raises(EvaluationError, match="cannot be read"):
        sheets.read(sheets.folder / "nowhere.csv")


def test_a_damaged_key_is_said(sheets):
    key, texts = sheets.draw()
    path = sheets.filled(key, texts, lambda _: "A")
    (sheets.home / key.sheet / "key.json").write_text("{")
    with pytest.raises(EvaluationError, match=r"key\.json is damaged"):
        sheets.read(path)


class Elements(HTMLParser):
    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_holds_every_row_as_text_and_loads_nothing(sheets):
    key, texts = sheets.draw([*pairs_of(3), shown("a" * 64, HOSTILE, HOSTILE + "!", HOSTILE)])
    page = page_sheet(key, texts).decode()
    found = Elements(page)
    tags = [tag for tag, _ in found.elements]
    assert (tags.count("fieldset"), tags.count("textarea"), tags.count("script")) == (4, 4, 1)
    radios = [each for tag, each in found.elements if tag == "input"]
    assert len({each["name"] for each in radios}) == 4 and {each["value"] for each in radios} == {"A", "B", "tie"}
    assert not set(tags) & {"img", "link", "iframe", "a"}
    assert not any(
        name in ("src", "href", "action") or name.startswith("on") for _, each in found.elements for name in each
    )
    assert "default-src 'none'" in page and not re.search(r"url\(|@import|fetch\(", page)
    text = "".join(found.text)
    assert "<script>alert(1)</script>" in text and "{{ 7 * 7 }}" in text and "\x1b" not in page
    assert not re.search("version|assistant|champion|baseline", page) and key.rows[0].row not in page


def saved(sheets, content):
    path = sheets.folder / "ratings.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_saved_page(path, sheets.find)


def test_what_a_page_saves_is_read_as_the_csv_is(sheets):
    key, texts = sheets.draw()
    lines = [{"row": n, "preference": likes_the_longer(row), "remark": "r"} for n, row in enumerate(texts, start=1)]
    lines[4]["preference"] = ""
    again, ratings = saved(sheets, {"sheet": key.sheet, "ratings": lines})
    assert again == key and len(ratings) == 11
    assert {(rating.preferred, rating.remark) for rating in ratings} == {("candidate", "r")}


@pytest.mark.parametrize(
    "line",
    [
        {"row": 0, "preference": "A", "remark": ""},
        {"row": 13, "preference": "A", "remark": ""},
        {"row": True, "preference": "A", "remark": ""},
        {"row": 1, "preference": "C", "remark": ""},
        {"row": 1, "preference": None, "remark": ""},
        {"row": 1, "preference": "A"},
        {"row": 2, "preference": "A", "remark": ""},
        ["A"],
    ],
)
def test_a_saved_page_with_what_is_no_rating_is_refused(line, sheets):
    key, _ = sheets.draw()
    with pytest.raises(EvaluationError, match=r"ratings\.json, rating 2 is .*; expected row, a number from 1 to 12"):
        saved(sheets, {"sheet": key.sheet, "ratings": [{"row": 2, "preference": "B", "remark": ""}, line]})


@pytest.mark.parametrize("content", ["", "[]", '{"sheet": 1}', '{"sheet": "x", "ratings": 3}', "[" * 100_000])
def test_a_file_that_no_page_saved_is_refused(content, sheets):
    with pytest.raises(EvaluationError, match="is not what a sheet's page saves"):
        saved(sheets, content)
    with pytest.raises(EvaluationError, match="of the sheet 'x'; expected one"):
        saved(sheets, '{"sheet": "x", "ratings": []}')


def ratings_of(*preferred):
    return [FilledIn(f"{n:064x}", each, "") for n, each in enumerate(preferred)]


def test_the_same_person_again_replaces_what_was_said_before_and_others_stay(sheets):
    key, _ = sheets.draw()
    keep_ratings(key, "Ann", ratings_of("candidate", "tie", "baseline"), sheets.home)
    keep_ratings(key, "Ben", ratings_of("candidate"), sheets.home)
    keep_ratings(key, "Ann", ratings_of("baseline", "baseline"), sheets.home)
    said = gather(key, sheets.home)
    rows = [f"{n:064x}" for n in range(3)]
    assert said.ratings == {"Ann": {rows[0]: "baseline", rows[1]: "baseline"}, "Ben": {rows[0]: "candidate"}}
    assert (said.identical, said.unrated) == (0, 10)


def test_sheets_on_the_same_two_are_counted_together_and_others_apart(sheets):
    key, _ = sheets.draw()
    second, _ = sheets.draw([*pairs_of(), shown("f" * 64, "p", "same", "same")])
    keep_ratings(key, "Ann", ratings_of("candidate"), sheets.home)
    keep_ratings(second, "Ann", [FilledIn(f"{5:064x}", "tie", "a remark")], sheets.home)
    other, _ = draw_sheet(pairs_of(), 5, ("assistant", 3, "d" * 64, "base"))
    keep_key(other, sheets.home)
    keep_ratings(other, "Eve", ratings_of("baseline"), sheets.home)
    said = gather(key, sheets.home)
    assert said.ratings == {"Ann": {f"{0:064x}": "candidate", f"{5:064x}": "tie"}}
    assert said.remarks == {"Ann": {f"{5:064x}": "a remark"}}
    assert (said.identical, said.unrated) == (1, 10)


def test_of_a_row_that_a_person_rated_on_two_sheets_the_later_rating_counts(sheets):
    (first, _), (second, _) = sheets.draw(), sheets.draw()
    for key, preferred in ((first, "candidate"), (second, "tie"), (first, "baseline")):
        keep_ratings(key, "Ann", ratings_of(preferred), sheets.home)
        assert gather(first, sheets.home).ratings == {"Ann": {f"{0:064x}": preferred}}


def test_the_id_of_a_sheet_leads_out_of_no_folder(sheets):
    key, _ = sheets.draw()
    (sheets.home / key.sheet).rename(sheets.folder / "elsewhere")
    assert (sheets.home / "../elsewhere/key.json").is_file()
    assert sheets.find("../elsewhere") is None


@pytest.mark.parametrize("name", ["", "  ", "a" * 81, "A\nB", "\x1b[31m", "a\u202eb"])
def test_a_name_is_one_that_prints(name):
    assert checked_person(" Ann Lee\n") == "Ann Lee"
    with pytest.raises(EvaluationError, match="expected a name of 1 to 80 characters"):
        checked_person(name)


def test_a_name_that_is_spelled_otherwise_is_the_same_person(sheets):
    """Else whoever reads a sheet in twice counts twice, and agrees with himself."""
    (first, _), (second, _) = sheets.draw(), sheets.draw()
    spellings = ["Ann Lee", "ann  lee", "ANN LEE ", "\uff21nn\u00a0Lee"]
    for spelling in spellings:
        keep_ratings(first, checked_person(spelling), ratings_of("candidate"), sheets.home)
        keep_ratings(second, checked_person(spelling), ratings_of("tie"), sheets.home)
    assert checked_person(spellings[-1]) == "Ann Lee"
    assert len(list(sheets.home.glob("*/by-*.json"))) == 2
    said = gather(first, sheets.home).ratings
    assert list(said.values()) == [{f"{0:064x}": "tie"}]
    keep_ratings(second, "Ann Le", ratings_of("tie"), sheets.home)
    assert len(gather(first, sheets.home).ratings) == 2


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"by": "Ann", "read_at": 1}',
        '{"by": ["A"], "read_at": 1, "ratings": []}',
        '{"by": "Ann", "read_at": "x", "ratings": []}',
        '{"by": "Ann", "read_at": 1, "ratings": [{"row": "%s"}]}',
        '{"by": "Ann", "read_at": 1, "ratings": [{"row": "%s", "preferred": "evil", "remark": ""}]}',
        '{"by": "Ann", "read_at": 1, "ratings": [{"row": "%s", "preferred": "tie", "remark": "\\ud800"}]}',
        '{"by": "Ann", "read_at": 1, "ratings": [{"row": "not-a-row", "preferred": "tie", "remark": ""}]}',
    ],
)
def test_damaged_ratings_are_said_and_not_counted(content, sheets):
    key, _ = sheets.draw()
    keep_ratings(key, "Ann", ratings_of("candidate"), sheets.home)
    (path,) = sheets.home.glob("*/by-*.json")
    path.write_text(content.replace("%s", key.rows[0].row))
    with pytest.raises(EvaluationError, match=r"by-.*\.json is damaged: .*read that sheet again"):
        gather(key, sheets.home)


def test_a_remark_with_half_a_character_is_kept(sheets):
    """JSON can spell it and UTF-8 cannot."""
    key, _ = sheets.draw()
    line = '{"row": 1, "preference": "A", "remark": "so \\ud800 so"}'
    _, ratings = saved(sheets, f'{{"sheet": "{key.sheet}", "ratings": [{line}]}}')
    keep_ratings(key, "Ann", ratings, sheets.home)
    assert gather(key, sheets.home).remarks == {"Ann": {key.rows[0].row: "so ? so"}}


def test_no_spreadsheet_takes_a_sheet_s_id_for_a_number():
    """Of 16 hex digits one id in some hundred was one, as 1234567890123e45, and came back changed."""
    for _ in range(300):
        key, _ = draw_sheet(pairs_of(1), 1, ABOUT)
        assert re.fullmatch("[b-df-z]{16}", key.sheet)


def test_people_are_counted_a_row_once_whoever_rated_it():
    ratings = {
        "Ann": {"1": "candidate", "2": "candidate", "3": "tie", "4": "baseline"},
        "Ben": {"1": "candidate", "2": "baseline", "3": "candidate"},
    }
    found = people_s_preference(ratings, 2, 5, "version 2", EVALUATION)
    assert (found.kind, found.by, found.baseline) == ("people", ("Ann", "Ben"), "version 2")
    assert (found.examples, found.wins, found.ties, found.losses) == (6, 2, 3, 1)
    assert found.share.value == pytest.approx((1 + 0.5 + 0.75 + 0 + 0.5 + 0.5) / 6)
    assert (found.p_better, found.p_worse) == (0.5, 0.875)
    assert (found.identical, found.left_out, found.position_bias) == (2, 5, None)
    assert found.agreement == pytest.approx(agreement(ratings)) and agreement({"Ann": ratings["Ann"]}) is None


def test_kappa_is_that_of_scikit_learn():
    from sklearn.metrics import cohen_kappa_score

    generator = random.Random(3)
    for rows in (5, 30, 200):
        first, second = ([generator.choice(("candidate", "tie", "baseline")) for _ in range(rows)] for _ in range(2))
        second[: rows // 2] = first[: rows // 2]
        assert kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))
    assert kappa(["tie", "tie"], ["tie", "tie"]) == 1.0
    assert kappa(["tie", "candidate"], ["candidate", "tie"]) == -1.0


def test_agreement_is_the_mean_over_pairs_who_rated_the_same_rows():
    same = {"1": "candidate", "2": "baseline"}
    ratings = {"Ann": same, "Ben": same, "Cem": {"1": "baseline", "2": "candidate"}, "Dee": {"9": "tie"}}
    assert agreement(ratings) == pytest.approx((1 - 1 - 1) / 3)
    assert agreement({"Ann": same, "Dee": {"9": "tie"}}) is None
