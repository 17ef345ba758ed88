import tracemalloc

import pytest

from tasks.contracts.cleaning_config import HtmlStep

HTML = HtmlStep()

NO_MARKUP = [
    "if (a < b && c > d) { x = y & z; }",
    "std::vector<int> v; Map<String, List<Integer>> m; fn f<T>(x: &T) -> Option<T>",
    "血压<140/90mmHg，心率>60次/分；A&B两组比较，P<0.05",
    "Use the generic type List<b> or Foo<p> here.",
    "A single <b> and a lonely </div> are no markup.",
    '```html\n<div class="x"><p>Hello &amp; bye</p></div>\n```',
    "Write it so:\n~~~jsx\n<p onClick={f}>a &lt; b</p><br>\n~~~\ndone",
    "Call `<b>bold</b>` or ``&amp; `x` ``.",
    "return <div className={cls}><p>{text}</p></div>;",
    "p = &copy; f(&reg;, &para;); AT&T; R&D; &unknown;",
    "an open fence\n```\n<p>code</p> &amp;",
    "x <- 5; y <!-- arrow",
    "1 << 2 <= 3 <> 4 </ >",
    "template<class a, class b> struct pair;",
    "<\u017fpan>x</\u017fpan> <\u212abd>y</\u212abd> <l\u0130nk> <l\u0131>",
    "<p\u00a0class=x>",
]


@pytest.mark.parametrize("text", NO_MARKUP)
def test_code_and_comparisons_come_back_as_they_are(text, cleaned_text):
    assert cleaned_text(text, HTML) is text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>One</p><p>Two &amp; three</p>", "One\n\nTwo & three"),
        ("患者<br>胸痛<br/><BR />两天", "患者\n胸痛\n\n两天"),
        ("<b>心肌梗死</b>是<i class='x'>急症</i>。", "心肌梗死是急症。"),
        ("<ul>\n  <li>one</li>\n  <li>two\n</ul>after", "- one\n- two\n\nafter"),
        ("<table><tr><td>a</td>\n<td>b</td></tr><tr><td>c</td><td>d</td></tr></table>", "a | b\nc | d"),
        ("<div>a < b and c > d</div>", "a < b and c > d"),
        ("x<script>if (a<b) { alert('<p>') }</script>y<style>p {}</style>z", "xyz"),
        ("a<!-- <p>hidden</p> -->b<br>", "ab"),
        ("<!DOCTYPE html><html><head><title>T</title></head><body>B</body></html>", "T\nB"),
        ("<a href=\"http://x/?a=1&b=2\" title='a > b'>link</a> end", "link end"),
        ("<p>vector<int> stays</p>", "vector<int> stays"),
        ("<pre>def f():\n    return 1</pre>", "def f():\n    return 1"),
        ("<pre>  indented</pre>x", "  indented\n\nx"),
        ("5 &lt; 6 &#39;q&#x27; &nbsp;&hellip;", "5 < 6 'q'  …"),
        ("<p>text</p>\n```\n<p>code</p>\n```\n<p>more</p>", "text\n\n```\n<p>code</p>\n```\n\nmore"),
        ("<p>see `<b>x</b>`</p>", "see `<b>x</b>`"),
        ("&lt;p&gt; stays a sign", "<p> stays a sign"),
        ("&#xD800;&#0;", "\ufffd\ufffd"),
        ("old<p>html<p>without ends", "old<p>html<p>without ends"),
        ("old <p>html <p>without ends", "old\n\nhtml\n\nwithout ends"),
    ],
)
def test_markup_becomes_text(text, expected, cleaned_text):
    assert cleaned_text(text, HTML) == expected


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["<p>", "<td>x"])
def test_memory_grows_by_no_more_than_some_copies_of_the_text(piece, cleaned_text):
    text = "<br>" + piece * (60_000 // len(piece))
    tracemalloc.start()
    try:
        cleaned_text(text, HTML)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * len(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        "<p ", '<a "', "<a '", "<br>", "<p>", "</b>", "<b>x</b>", "<!--", "<script>", "<style><script>", "</script>",
        "&", "&amp;", "&#", "&aaaaaaaa", "`", "``x", "\n```", "\n~~~~", "<a x='\">", "<td>", "<!doctype ", "< ", "-->",
        "<a ''",
    ],
)  # fmt: skip
def test_hostile_markup_takes_linear_time(piece, cleaned_text, assert_linear):
    assert_linear(lambda text: cleaned_text(text, HTML), lambda size: "<br>" + piece * size, 4_000)


def test_growing_runs_of_backticks_take_linear_time(cleaned_text, assert_linear):
    def staircase(size):
        return "<br>" + "x".join("`" * (number % 500) for number in range(size // 250))

    assert_linear(lambda text: cleaned_text(text, HTML), staircase, 50_000)


@pytest.mark.slow
def test_comments_that_nothing_closes_are_looked_for_once(cleaned_text, assert_linear):
    assert_linear(lambda text: cleaned_text(text, HTML), lambda size: "<!-- x -->" + "<!--" * size, 10_000)
