"""Other people's names of photos."""

from ultron_cli.datasets.name_matching import match_names


def matched(names: list[str], known: list[str]) -> dict[str, str | None]:
    rows = match_names(names, known).rows.tolist()
    return {name: known[row] if row >= 0 else None for name, row in zip(names, rows, strict=True)}


def test_suffixes_folders_and_case() -> None:
    known = ["all_souls_000013", "Radcliffe_1.jpg", "sub/x.png", "caf\u00e9", "v1.2"]
    names = ["jpg/all_souls_000013.jpg", "radcliffe_1", ".\\sub\\x", "cafe\u0301", "v1.2", "unknown"]
    match = match_names(names, known)
    assert match.rows.tolist() == [0, 1, 2, 3, 4, -1]
    assert match.n_by_spelling == {
        "as they are": 1,
        "with other separators or accents": 1,
        "with another suffix or none": 1,
        "in other folders": 1,
        "in other case": 1,
    }
    assert (match.surplus, match.missing, match.ambiguous) == (["unknown"], [], [])
    assert match.how_text().startswith("1 as they are, 1 with other separators or accents, ")


def test_a_photo_that_is_named_exactly_is_not_taken_for_another() -> None:
    assert matched(["d/a.jpg", "a"], ["a"]) == {"d/a.jpg": None, "a": "a"}
    assert matched(["a.png", "a.jpg"], ["a.jpg", "a.png"]) == {"a.png": "a.png", "a.jpg": "a.jpg"}
    assert matched(["1/a", "2/a"], ["2/a", "1/a"]) == {"1/a": "1/a", "2/a": "2/a"}
    assert matched(["A", "a"], ["a", "A"]) == {"A": "A", "a": "a"}
    assert match_names(["d/a.jpg", "a"], ["a"]).ambiguous == []


def test_what_may_mean_several_means_none_and_is_told() -> None:
    of_several = match_names(["a"], ["1/a.jpg", "2/a.jpg"])
    assert (of_several.rows.tolist(), of_several.ambiguous) == ([-1], ["a"])
    assert of_several.missing == ["1/a.jpg", "2/a.jpg"]
    sharing = match_names(["1/a.jpg", "2/a.jpg", "b"], ["a", "b"])
    assert (sharing.rows.tolist(), sharing.ambiguous) == ([-1, -1, 1], ["1/a.jpg", "2/a.jpg"])
    assert sharing.ambiguous_text() == " (2 of them may mean several, or share one: 1/a.jpg, 2/a.jpg)"
    # One of the two is named exactly elsewhere: the other may still mean either.
    assert matched(["1/a", "a"], ["1/a", "2/a"]) == {"1/a": "1/a", "a": None}


def test_a_dot_in_a_name_is_no_suffix() -> None:
    assert matched(["v1.2"], ["v1.3"]) == {"v1.2": None}
    assert matched(["v1.2.jpg"], ["v1.2"]) == {"v1.2.jpg": "v1.2"}


def test_nothing_matches_nothing() -> None:
    assert match_names([], ["a"]).missing == ["a"]
    assert match_names(["a"], []).surplus == ["a"]
