"""Inventories: every form, told apart by itself, and errors that name file, line and what was expected."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stapleguard.inventory import MAX_LINE, MAX_PLACES, MAX_TEXT, Form, Place, detect, parse, place
from stapleguard.model import UsageError

pytestmark = pytest.mark.unit

LINES = """\
# the front
www.example.org            # default port
example.org:8443 www.example.org
[2001:db8::1]:444 six.example.org
192.0.2.7
2001:db8::2
smtp://mail.example.org
postgres://db.example.org:6432 db
https://shop.example.org/health
"""

INI = """\
lone.example.org stapleguard_port=8443   # not in a group
[web]
web[08:10].example.org
web[a:c:2].example.org ansible_port=2222
node1 ansible_host=10.0.0.5 stapleguard_sni="www.example.org"
node2:2200 ansible_host=gateway.example.org
web08.example.org
[db]
; a comment of INI
[2001:db8::5]
[web:vars]
stapleguard_port=9443
ansible_user=root
[all:vars]
stapleguard_sni=all.example.org
[site:children]
web
[site:vars]
stapleguard_port=1
"""


def refused(text: str, form: Form | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(text, "the.list", form)
    assert caught.value.hint
    return caught.value


def places(text: str) -> list[tuple[str, int, str, tuple[str, ...]]]:
    return [(one.host, one.port, one.server_name, one.addresses) for one in parse(text, "the.list")]


def test_plain_lines() -> None:
    assert detect(LINES) is Form.LINES
    assert parse(LINES, "the.list") == (
        Place("www.example.org", 443),
        Place("example.org", 8443, "www.example.org"),
        Place("2001:db8::1", 444, "six.example.org"),
        Place("192.0.2.7", 443),
        Place("2001:db8::2", 443),
        Place("mail.example.org", 25, starttls="smtp"),
        Place("db.example.org", 6432, "db", starttls="postgres"),
        Place("shop.example.org", 443),
    )


def test_a_place_is_written_as_it_is_read() -> None:
    for one in parse(LINES, "the.list"):
        assert parse(str(one), "again") == (one,)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a.test:0", "not an endpoint"),
        ("a.test:65536", "not an endpoint"),
        ("a.test:http", "not an endpoint"),
        ("a.test/path", "not an endpoint"),
        ("-a.test", "not an endpoint"),
        ("[fe80::zz]:1", "not an endpoint"),
        ("gopher://a.test", "unknown scheme gopher://"),
        ("a.test b.test c.test", "too many words"),
        ("a.test -oProxyCommand", "not a server name"),
        ("a.test b\x1b[31m", "not a server name"),
        ("a" * (MAX_LINE + 1), "longer than"),
    ],
)
def test_a_bad_line_is_named_with_its_number(line: str, says: str) -> None:
    error = refused(f"good.test\n\n{line}\n")
    assert error.message.startswith(f"the.list:3: {says}")
    assert "\x1b" not in error.message


def test_ansible_ini_with_groups_ranges_and_variables() -> None:
    assert detect(INI) is Form.ANSIBLE_INI
    site = "all.example.org"
    assert places(INI) == [
        ("lone.example.org", 8443, site, ()),
        ("web08.example.org", 9443, site, ()),
        ("web09.example.org", 9443, site, ()),
        ("web10.example.org", 9443, site, ()),
        ("weba.example.org", 9443, site, ()),
        ("webc.example.org", 9443, site, ()),
        ("node1", 9443, "www.example.org", ("10.0.0.5",)),
        ("gateway.example.org", 9443, site, ()),
        ("2001:db8::5", 443, site, ()),
    ]
    assert [dict(one.labels) for one in parse(INI, "the.list")][:2] == [{}, {"groups": "web"}]


def test_an_ansible_host_that_is_a_name_is_asked_for_the_inventory_name() -> None:
    assert places("[web]\nwww.example.org ansible_host=gateway.test") == [
        ("gateway.test", 443, "www.example.org", ())
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[web]\nweb[20:01].test", "the.list:2: not a range of hosts: [20:01]"),
        ("[web]\nweb[1:z].test", "the.list:2: not a range of hosts"),
        ("[web]\nweb[1:9:0].test", "the.list:2: not a range of hosts"),
        (f"[web]\nw[1:{MAX_PLACES + 2}]", "the.list:2: not a range of hosts"),
        ("[web]\nw[1:999][1:999]", "the.list:2: not a range of hosts"),
        ("[web]\na.test x='", "the.list:2: no closing quotation"),
        ("[web]\na.test word", "the.list:2: not KEY=VALUE: word"),
        ("[web:extras]\na.test", "the.list:2: unknown section [...:extras]"),
        (
            "[web]\na.test\n[web:vars]\nstapleguard_port=https",
            "the.list:4: stapleguard_port is no port: https",
        ),
        ("[web]\na.test stapleguard_sni=-x", "the.list:2: not a server name: -x"),
        ("[web]\na.test ansible_host={{ip}}", "the.list:2: ansible_host is no host"),
        ("[web]\na/b", "the.list:2: the host is no host: a/b"),
    ],
)
def test_a_bad_ini_is_named_with_its_line(text: str, where: str) -> None:
    assert refused(text).message.startswith(where)


def test_a_circle_of_groups_ends() -> None:
    text = "[a]\nhost.test\n[a:children]\nb\n[b:children]\na\n[b:vars]\nstapleguard_port=2"
    assert places(text) == [("host.test", 2, "", ())]


def test_what_ansible_inventory_prints() -> None:
    text = json.dumps(
        {
            "_meta": {
                "hostvars": {
                    "web1.test": {"stapleguard_port": 8443, "ansible_host": "10.0.0.1", "other": [1]},
                    "web2.test": {"stapleguard_sni": "www.test", "ansible_host": None},
                    "loose.test": {},
                }
            },
            "all": {"children": ["ungrouped", "web"]},
            "web": {"hosts": ["web1.test", "web2.test", "web3.test"]},
        },
        indent=1,
    )
    assert detect(text) is Form.ANSIBLE_JSON
    assert places(text) == [
        ("web1.test", 8443, "", ("10.0.0.1",)),
        ("web2.test", 443, "www.test", ()),
        ("web3.test", 443, "", ()),
        ("loose.test", 443, "", ()),
    ]
    assert refused(text.replace("8443", '"x"')).message == "the.list:4: stapleguard_port is no port: x"


def test_prometheus_file_sd() -> None:
    text = """[
      {"targets": ["a.test:8443", "smtp://mail.test:25"], "labels": {"env": "prod", "__meta_x": "1"}},
      {"targets": ["[2001:db8::1]:443", "https://b.test/"]}
    ]"""
    assert detect(text) is Form.FILE_SD
    found = parse(text, "the.list")
    assert [str(one) for one in found] == [
        "a.test:8443",
        "smtp://mail.test:25",
        "[2001:db8::1]:443",
        "b.test:443",
    ]
    assert [dict(one.labels) for one in found] == [{"env": "prod"}, {"env": "prod"}, {}, {}]
    assert detect("[]") is Form.FILE_SD
    assert refused(text.replace("b.test", "b test")).message.startswith("the.list:3: not an endpoint")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"targets": ["a.test"]},\n {"targets" []}]', "the.list:2: not valid JSON"),
        ('[{"targets": "a.test"}]', "the.list: [0].targets must be a list of HOST:PORT"),
        ('[{"targets": ["a"], "labels": {"a-b": "c"}}]', "the.list: [0].labels.a-b must be a label name"),
        ('[{"targets": ["a"], "labels": {"a": 1}}]', "the.list: [0].labels.a must be a label name"),
        ('[{"targets": ["a"], "labels": []}]', "the.list: [0].labels must be an object"),
        ('{"_meta": []}', "the.list: _meta must be"),
        ('{"_meta": {"hostvars": {"a": 1}}}', "the.list: _meta.hostvars.a must be an object"),
        ('{"web": {"hosts": {"a": 1}}}', "the.list: web.hosts must be a list of names"),
        ('{"web": 1}', "the.list: web must be an object"),
        ("[" + '{"a":[' * 200_000, "the.list:1: not valid JSON"),
        ('[{"targets": [' + "1" * 5000 + "]}]", "the.list:1: not valid JSON"),
    ],
)
def test_json_that_is_none_or_another_is_named(text: str, says: str) -> None:
    assert refused(text).message.startswith(says)


def test_a_named_form_is_not_guessed() -> None:
    assert "must be a list" in refused("{}", Form.FILE_SD).message
    assert "must be what" in refused("[]", Form.ANSIBLE_JSON).message
    assert parse("{}", "the.list", Form.ANSIBLE_JSON) == ()


def test_sizes_are_bounded() -> None:
    assert "larger than" in refused("#" * (MAX_TEXT + 1)).message
    text = "\n".join(f"w{block}[1:200000].test" for block in range(2))
    assert "more than" in refused("[web]\n" + text).message


def test_an_endpoint_is_listed_once() -> None:
    assert len(parse("a.test\na.test:443\na.test 443\na.test b", "the.list")) == 3


@pytest.mark.parametrize(
    "text", ["", "a b", "a:1:2", "http://a", "a\n", "a\0", "..", "[]", "[::1", "é" * 300]
)
def test_a_single_endpoint_is_checked(text: str) -> None:
    with pytest.raises(UsageError):
        place(text)
    assert place("münchen.test:1").host == "münchen.test"


@given(st.text(alphabet=st.sampled_from("a.:/[]%-_ 1é\n\0") | st.characters()))
def test_any_target_is_a_place_or_refused(text: str) -> None:
    try:
        told = str(place(text))
    except UsageError as error:
        told = error.message
    assert told.isprintable()


WORDS = st.sampled_from(
    [
        "[web]",
        "[web:vars]",
        "[a:children]",
        "a.test",
        "a[1:3]",
        "k=v",
        "stapleguard_port=1",
        "ansible_host=::1",
        *"{}[]:,#;'",
        "smtp://",
        '"targets"',
        '"a:1"',
        '"hosts"',
        '"_meta"',
        " ",
        "\n",
    ]
)


@given(st.one_of(st.text(), st.lists(WORDS).map("".join)), st.sampled_from([None, *Form]))
@example('{"_meta": {"hostvars": {"[": {"ansible_host": "["}}}}', None)
@example("[", Form.ANSIBLE_INI)
@example("[a\x1c]\n[a\x1c:vars]", None)
def test_any_text_gives_places_or_a_usage_error(text: str, form: Form | None) -> None:
    try:
        found = parse(text, "the.list", form)
    except UsageError as error:
        told = error.message + error.hint
        found = ()
    else:
        told = "".join(str(one) for one in found)
    assert told.isprintable()
    for one in found:
        assert 0 < one.port < 65536
        assert place(one.authority).host == one.host
