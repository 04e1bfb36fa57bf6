"""Settings: file, environment, command line, in that order; whatever is wrong is named with what would be right."""

import dataclasses
import json
import tomllib

import pytest

from penstock.config import NetworkSettings, Settings, SettingWrong, load, made_of, spelled
from penstock.core.party import Secret


@pytest.fixture
def home(tmp_path):
    return tmp_path


def write(home, text):
    (home / "penstock.toml").write_text(text, "utf-8")


def test_without_file_and_environment_everything_has_a_default(home):
    settings = load(home, {})
    assert settings == Settings(home=home)
    assert settings.database_url == f"sqlite:///{home / 'penstock.db'}"
    assert (settings.server.listen, settings.limits.requests_per_second, settings.webhooks.allow_private_targets) == (
        "127.0.0.1:8080",
        100,
        False,
    )


def test_the_home_folder_is_named_by_the_caller_or_the_environment_or_is_beside_us(home, monkeypatch):
    monkeypatch.chdir(home)
    assert load(home / "given", {"PENSTOCK_HOME": "/elsewhere"}).home == home / "given"
    assert load(None, {"PENSTOCK_HOME": str(home / "named")}).home == home / "named"
    assert load(None, {"PENSTOCK_HOME": ""}).home == home / "penstock-home"
    assert load(None, {}).home.is_absolute()


def test_the_file_sets_the_environment_overrides_it_and_the_command_line_overrides_both(home):
    write(home, '[server]\nlisten = "1.1.1.1:1"\n[limits]\nrequests_per_second = 5\n[database]\nurl = "sqlite:////file"')
    env = {"PENSTOCK_SERVER__LISTEN": "2.2.2.2:2", "PENSTOCK_LIMITS__REQUESTS_PER_SECOND": "6"}
    settings = load(home, env, server__listen="3.3.3.3:3", database__url=None)
    assert settings.server.listen == "3.3.3.3:3"
    assert settings.limits.requests_per_second == 6
    assert settings.database_url == "sqlite:////file"


def test_every_section_can_be_given_in_the_file_in_its_own_types(home):
    write(
        home,
        """
        [webhooks]
        allow_private_targets = true
        schedule = [0, 60, 300]
        [limits]
        trusted_proxies = ["10.0.0.0/8", "::1"]
        [policy]
        withdrawals = false
        deny_addresses = ["0xabc"]
        minimum = { USDT = "1.5", eth = 2 }
        maximum = { USDT = "1000" }
        [networks.ETH]
        rpc_urls = ["http://a", "https://b"]
        confirmations = 12
        fee_max = "0.01"
        [networks.polygon]
        chain_id = 4137
        """,
    )
    settings = load(home, {})
    assert (settings.webhooks.allow_private_targets, settings.webhooks.schedule) == (True, (0, 60, 300))
    assert settings.limits.trusted_proxies == ("10.0.0.0/8", "::1")
    assert (settings.policy.withdrawals, settings.policy.deny_addresses) == (False, ("0xabc",))
    assert (dict(settings.policy.minimum), dict(settings.policy.maximum)) == ({"USDT": "1.5", "ETH": "2"}, {"USDT": "1000"})
    assert settings.networks["ETH"] == NetworkSettings(rpc_urls=("http://a", "https://b"), confirmations=12, fee_max="0.01")
    assert settings.networks["POLYGON"].chain_id == 4137


def test_a_child_is_told_the_settings_of_its_parent_and_needs_neither_file_nor_environment(home):
    write(home, '[server]\nprocesses = 3\n[policy]\nminimum = { USDT = "1.5" }\nwithdrawals = false\n[networks.TRX]\nbatch_window_s = 0')
    node = "02" + "ab" * 32
    env = {
        "PENSTOCK_PASSPHRASE": SECRET,
        "PENSTOCK_NETWORKS__ETH__RPC_URLS": "http://a,https://b",
        "PENSTOCK_NETWORKS__LIGHTNING__NODE_ID": node,
        "PENSTOCK_WEBHOOKS__SCHEDULE": "0,5",
        "PENSTOCK_DATABASE__URL": f"postgresql://u:{SECRET}@db/penstock",
        "PENSTOCK_LIMITS__TRUSTED_PROXIES": "10.0.0.0/8",
        "PENSTOCK_SIGNER__DAY_MAX__USDT": "7",
    }
    settings = load(home, env)
    told = json.dumps(spelled(settings))
    write(home, "[server]\nprocesses = 9")
    again = made_of(json.loads(told), home=settings.home, passphrase=SECRET)
    assert again.passphrase.reveal() == SECRET
    assert dataclasses.replace(again, passphrase=None) == dataclasses.replace(settings, passphrase=None)
    assert (again.server.processes, again.networks["TRX"].batch_window_s, again.networks["ETH"].batch_window_s) == (3, 0, -1)


def test_the_environment_can_set_a_network_with_a_list(home):
    env = {"PENSTOCK_NETWORKS__ETH__RPC_URLS": "http://a, https://b,", "PENSTOCK_NETWORKS__ETH__CHAIN_ID": "31337"}
    assert dict(load(home, env).networks) == {"ETH": NetworkSettings(rpc_urls=("http://a", "https://b"), chain_id=31337)}


@pytest.mark.parametrize("chain", ["ETH", "eth", "Eth"])
def test_a_network_of_the_file_and_of_the_environment_is_one_network(home, chain):
    write(home, f'[networks.{chain}]\nrpc_urls = ["http://file"]\nconfirmations = 3')
    settings = load(home, {"PENSTOCK_NETWORKS__ETH__RPC_URLS": "http://env"})
    assert dict(settings.networks) == {"ETH": NetworkSettings(rpc_urls=("http://env",), confirmations=3)}


def test_an_empty_list_in_the_environment_turns_a_network_off(home):
    write(home, '[networks.ETH]\nrpc_urls = ["http://file"]')
    assert load(home, {"PENSTOCK_NETWORKS__ETH__RPC_URLS": ""}).networks["ETH"].rpc_urls == ()


@pytest.mark.parametrize("symbol", ["USDT", "usdt"])
def test_a_limit_of_the_file_gives_way_to_one_of_the_environment(home, symbol):
    write(home, f'[policy]\nminimum = {{ {symbol} = "5" }}')
    assert dict(load(home, {"PENSTOCK_POLICY__MINIMUM__USDT": "7"}).policy.minimum) == {"USDT": "7"}


@pytest.mark.parametrize(("text", "value"), [("true", True), ("YES", True), ("1", True), ("False", False), ("no", False), ("0", False)])
def test_a_flag_of_the_environment_is_a_word(home, text, value):
    assert load(home, {"PENSTOCK_WEBHOOKS__ALLOW_PRIVATE_TARGETS": text}).webhooks.allow_private_targets is value


def test_what_is_not_ours_is_left_alone(home):
    env = {
        "PATH": "/bin",
        "PENSTOCK_TEST_POSTGRES": "x",
        "PENSTOCKS__A": "1",
        "PENSTOCK_PORT": "tcp://1",
        "PENSTOCK_SERVICE_HOST": "1.2.3.4",
    }
    assert load(home, {**env, "PENSTOCK_DATABASE_PORT": "tcp://5432"}) == Settings(home=home)


WRONG_FILES = [
    ("[server]\nlisten = 5", "server.listen must be a text"),
    ('[server]\nlisten = "8080"', "server.listen must be address:port, such as 127.0.0.1:8080"),
    ('[server]\nlisten = ":8080"', "server.listen must be address:port, such as 127.0.0.1:8080"),
    ('[server]\nlisten = "127.0.0.1:"', "server.listen must be address:port, such as 127.0.0.1:8080"),
    ('[server]\nlisten = "127.0.0.1:http"', "server.listen must be address:port, such as 127.0.0.1:8080"),
    ('[server]\nlisten = "127.0.0.1:65536"', "server.listen must be address:port, such as 127.0.0.1:8080"),
    ('[server]\nlisten = "127.0.0.1:\\u00b2"', "server.listen must be address:port, such as 127.0.0.1:8080"),
    ('[database]\nurl = "postgresql://a/b"\nreplica_url = "sqlite:///c"', "database.replica_url must be postgresql://"),
    ('[database]\nreplica_url = "postgresql://a/b"', "a standby of database.url, which must be PostgreSQL too"),
    ("[server]\nport = 1", "server.port is not a setting; [server] has listen, processes"),
    ("[server]\nprocesses = 0", "server.processes is 0, and must be 1 to 64"),
    ("[server]\nprocesses = 65", "server.processes is 65, and must be 1 to 64"),
    (
        "[servers]\nport = 1",
        "there is no section [servers]; there are database, limits, networks, policy, prices, server, signer, webhooks",
    ),
    ("server = 5", "[server] must be a section"),
    ("listen = 5", "there is no section [listen]"),
    ("[home]\na = 1", "there is no section [home]"),
    ('passphrase = "x"', "there is no section [passphrase]"),
    ("[limits]\nrequests_per_second = -1", "limits.requests_per_second must be a whole number that is not negative"),
    ("[limits]\nrequests_per_second = 1.5", "limits.requests_per_second must be a whole number that is not negative"),
    ("[limits]\nrequests_per_second = true", "limits.requests_per_second must be a whole number that is not negative"),
    ('[limits]\nrequests_per_second = "many"', "limits.requests_per_second must be a whole number that is not negative"),
    ('[limits]\nrequests_per_second = "\\u0661"', "limits.requests_per_second must be a whole number that is not negative"),
    ('[limits]\ntrusted_proxies = ["proxy.local"]', "limits.trusted_proxies: proxy.local is not an address or network"),
    ("[limits]\ntrusted_proxies = 5", "limits.trusted_proxies must be a list"),
    ("[limits]\ntrusted_proxies = [5]", "limits.trusted_proxies must be a text"),
    ("[webhooks]\nallow_private_targets = 1", "webhooks.allow_private_targets must be true or false"),
    ('[webhooks]\nallow_private_targets = "maybe"', "webhooks.allow_private_targets must be true or false"),
    ("[webhooks]\nschedule = [1, -5]", "webhooks.schedule must be a whole number that is not negative"),
    ("[policy]\nminimum = 5", "policy.minimum must be a table"),
    ('[policy]\nminimum = { USDT = "-1" }', 'policy.minimum.USDT must be a plain decimal text, such as "12.5"'),
    ('[policy]\nminimum = { USDT = "1e3" }', 'policy.minimum.USDT must be a plain decimal text, such as "12.5"'),
    ('[policy]\nmaximum = { USDT = "1,000" }', 'policy.maximum.USDT must be a plain decimal text, such as "12.5"'),
    ('[policy]\nmaximum = { USDT = "0.0000000000000000001" }', 'policy.maximum.USDT must be a plain decimal text, such as "12.5"'),
    ("[policy]\nminimum = { USDT = 0.1 }", "policy.minimum.USDT must be a text"),
    ("[policy]\nminimum = { USDT = true }", "policy.minimum.USDT must be a text"),
    ("[networks]\nETH = 5", "[networks.ETH] must be a section"),
    ("networks = 5", "[networks] must be a section"),
    (
        "[networks.ETH]\nrpc_url = 'http://a'",
        "networks.ETH.rpc_url is not a setting; [networks.ETH] has batch_max, batch_window_s, block_ms, chain_id, confirmations",
    ),
    ("[networks.ETH]\nrpc_urls = ['node:8545']", "networks.ETH.rpc_urls must begin with http:// or https://"),
    ("[networks.LIGHTNING]\nrpc_urls = ['lnd+https://node']", "networks.LIGHTNING.node_id is missing"),
    ("[networks.LIGHTNING]\nnode_id = '02'\nrpc_urls = ['https://node']", "networks.LIGHTNING.rpc_urls must begin with lnd+https:// or "),
    ("[networks.ETH]\nfee_max = 0.1", "networks.ETH.fee_max must be a text"),
    ("[networks.ETH]\nfee_max = 'a lot'", 'networks.ETH.fee_max must be a plain decimal text, such as "12.5"'),
    ("[networks.ETH]\nchain_id = 1\n[networks.eth]\nchain_id = 2", "[networks.ETH] is there twice"),
    ("[server", "penstock.toml is not valid TOML"),
    ("[server]\nlisten = 1\nlisten = 2", "penstock.toml is not valid TOML"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_FILES)
def test_a_wrong_value_in_the_file_is_named_with_what_would_be_right(home, text, message):
    write(home, text)
    with pytest.raises(SettingWrong) as caught:
        load(home, {})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PENSTOCK_SERVER__PORT", "1", "server.port is not a setting; [server] has listen"),
        ("PENSTOCK_SERVER__LISTEN__PORT", "1", "server.listen must be a text"),
        ("PENSTOCK_SERVERS__LISTEN", "1", "there is no section [servers]"),
        ("PENSTOCK_HOME__X", "1", "there is no section [home]"),
        ("PENSTOCK_NETWORKS__ETH", "http://a", "[networks.ETH] must be a section"),
        ("PENSTOCK_NETWORKS__ETH__", "1", "networks.ETH. is not a setting"),
        ("PENSTOCK_NETWORKS__ETH__CHAIN_ID", "0x1", "networks.ETH.chain_id must be a whole number that is not negative"),
        ("PENSTOCK_WEBHOOKS__SCHEDULE", "1,x", "webhooks.schedule must be a whole number that is not negative"),
        ("PENSTOCK_DATABASE_URL", "postgresql://a/b", "PENSTOCK_DATABASE_URL is not a setting; write PENSTOCK_DATABASE__URL"),
        ("PENSTOCK_SERVER_LISTEN", "1.1.1.1:1", "PENSTOCK_SERVER_LISTEN is not a setting; write PENSTOCK_SERVER__LISTEN"),
        ("PENSTOCK_WEBHOOKS_ALLOW_PRIVATE_TARGETS", "1", "write PENSTOCK_WEBHOOKS__ALLOW_PRIVATE_TARGETS"),
        (
            "PENSTOCK_NETWORKS_ETH_RPC_URLS",
            "http://a",
            "PENSTOCK_NETWORKS_ETH_RPC_URLS is not a setting; write PENSTOCK_NETWORKS__ETH__RPC_URLS",
        ),
    ],
)
def test_a_wrong_value_in_the_environment_is_named_with_what_would_be_right(home, name, value, message):
    with pytest.raises(SettingWrong) as caught:
        load(home, {name: value})
    assert message in str(caught.value)


def test_a_value_in_the_environment_that_meets_one_in_the_file_where_it_has_no_place(home):
    write(home, '[server]\nlisten = "1.1.1.1:1"')
    with pytest.raises(SettingWrong, match="PENSTOCK_SERVER__LISTEN__PORT does not fit: listen is not a section"):
        load(home, {"PENSTOCK_SERVER__LISTEN__PORT": "1"})


def test_a_file_that_cannot_be_read_is_named(home):
    (home / "penstock.toml").mkdir()
    with pytest.raises(SettingWrong, match=r"penstock\.toml cannot be read: Is a directory"):
        load(home, {})


def test_a_file_that_is_not_utf8_is_named(home):
    (home / "penstock.toml").write_bytes(b"[server]\nlisten = '\xff'")
    with pytest.raises(SettingWrong, match=r"penstock\.toml is not valid TOML"):
        load(home, {})


SECRET = "hunter2"
SECRETIVE = {
    "PENSTOCK_PASSPHRASE": SECRET,
    "PENSTOCK_DATABASE__URL": f"postgresql://u:{SECRET}@db/penstock",
    "PENSTOCK_DATABASE__REPLICA_URL": f"postgresql://u:{SECRET}@standby/penstock",
    "PENSTOCK_NETWORKS__ETH__RPC_URLS": f"https://u:{SECRET}@node,https://node/v3/{SECRET}",
    "PENSTOCK_PRICES__URL": f"https://prices/{{ids}}?key={SECRET}",
}


def test_secrets_are_never_printed(home):
    settings = load(home, SECRETIVE)
    assert isinstance(settings.passphrase, Secret)
    assert settings.passphrase.reveal() == SECRET
    assert SECRET in settings.database_url
    assert SECRET in settings.database.replica_url
    assert all(SECRET in url for url in settings.networks["ETH"].rpc_urls)
    for text in (repr(settings), str(settings), f"{settings}", repr(settings.networks), repr(settings.database), repr(settings.prices)):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PENSTOCK_NETWORKS__ETH__RPC_URLS", f"ftp://u:{SECRET}@node"),
        ("PENSTOCK_NETWORKS__ETH__RPC_URLS__X", f"https://u:{SECRET}@node"),
        ("PENSTOCK_DATABASE__REPLICA_URL", f"mysql://u:{SECRET}@db/penstock"),
        ("PENSTOCK_DATABASE__URLS", f"postgresql://u:{SECRET}@db/penstock"),
        ("PENSTOCK_DATABASE_URL", f"postgresql://u:{SECRET}@db/penstock"),
        ("PENSTOCK_PASSPHRASE__X", SECRET),
        ("PENSTOCK_SERVER__LISTEN", SECRET),
        ("PENSTOCK_LIMITS__REQUESTS_PER_SECOND", SECRET),
    ],
)
def test_an_error_names_the_setting_and_never_its_value(home, name, value):
    with pytest.raises(SettingWrong) as caught:
        load(home, {name: value})
    assert SECRET not in str(caught.value)


def test_an_empty_passphrase_is_none(home):
    assert load(home, {"PENSTOCK_PASSPHRASE": ""}).passphrase is None


def test_settings_cannot_be_changed_once_read(home):
    settings = load(home, {"PENSTOCK_POLICY__MINIMUM__USDT": "1"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.server = None
    with pytest.raises(TypeError):
        settings.policy.minimum["USDT"] = "0"


def test_the_wrong_files_of_this_test_are_wrong_for_the_reason_they_name():
    for text, message in WRONG_FILES:
        if "valid TOML" not in message:
            tomllib.loads(text)
