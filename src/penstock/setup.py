"""`penstock init`: makes what a home lacks. The one command beside the signer that ever has the seed in its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from penstock.config import Settings
from penstock.core.party import Secret
from penstock.core.seal import KEY_BYTES
from penstock.db import open_database
from penstock.runtime import Runtime, SystemRuntime
from penstock.signer import addresses
from penstock.signer.addresses import PublicAddresses, keep_public, load_public
from penstock.signer.keys import public_keys
from penstock.signer.place import SEAL_CONTEXT, SEAL_FILE, folder_of, refuse_old_home
from penstock.signer.policy import allowed_networks, load_catalog
from penstock.signer.seed import create_seed, has_seed
from penstock.vault import Vault, VaultError

SETTINGS_TEMPLATE: Final = """\
# Penstock's settings. Each can also be given as PENSTOCK_SECTION__KEY, and the environment wins.

[server]
listen = "127.0.0.1:8080"

# A network is off until it has node URLs.
# [networks.ETH]
# rpc_urls = ["https://your-node.example"]
"""


async def initialise(settings: Settings, *, key_file: bool, asked: str | None) -> dict[str, Any]:
    """Make what is missing: home folder, settings file, vaults, seed, seal key, database. Changes nothing that is there."""
    home = settings.home
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_old_home(home)
    runtime = SystemRuntime()
    try:
        template = home / "penstock.toml"
        if not template.exists():
            template.write_text(SETTINGS_TEMPLATE, "utf-8")
        passphrase = Secret(asked) if asked else settings.passphrase
        _make_keys(settings, runtime, passphrase, key_file=key_file or passphrase is None)
        database = open_database(runtime, settings.database_url)
        applied = await database.migrate()
        await database.close()
        catalog = load_catalog(settings)
        known = PublicAddresses(load_public(home), allowed_networks(settings, catalog, every=True))
        unlocked_by = "key file" if (home / "vault.key").exists() else "passphrase"
        hot = {network.family: await known.address(network.chain, 0) for network in catalog.networks() if known.has(network.chain)}
        more = {
            chain: ", ".join(known.addresses(chain)[: wanted.hot_addresses])
            for chain, wanted in settings.networks.items()
            if wanted.hot_addresses > 1 and known.has(chain)
        }
        made = {"home": str(home), "unlocked_by": unlocked_by, "migrations": applied, "hot_addresses": hot}
        return made | ({"hot_addresses_of": more} if more else {})
    finally:
        runtime.close()


def _make_keys(settings: Settings, runtime: Runtime, passphrase: Secret | None, *, key_file: bool) -> None:
    """The gateway's vault and seal key, and a signer's folder with its own. Raises VaultError."""
    home, folder = settings.home, folder_of(settings)
    vault = Vault.create(home, runtime, passphrase=passphrase, key_file=key_file)
    if (home / addresses.FILE).exists() and not folder.exists():
        return  # the signer's folder was moved to a user or machine of its own; another seed must never be made in its place
    if (home / addresses.FILE).exists() and not has_seed(folder):
        raise VaultError(f"the seed in {folder} is missing, and this home had one; put the folder back from a backup")
    signer_vault = Vault.create(folder, runtime, passphrase=passphrase, key_file=key_file)
    keep_public(home, public_keys(create_seed(folder, signer_vault, runtime)), runtime)
    vault.keep(home / SEAL_FILE, runtime.random_bytes(KEY_BYTES), SEAL_CONTEXT)
    signer_vault.keep(folder / SEAL_FILE, vault.kept(home / SEAL_FILE, SEAL_CONTEXT), SEAL_CONTEXT)
    _check_seals(home / SEAL_FILE, vault, folder / SEAL_FILE, signer_vault)


def _check_seals(ours: Path, vault: Vault, theirs: Path, signer_vault: Vault) -> None:
    if vault.kept(ours, SEAL_CONTEXT) != signer_vault.kept(theirs, SEAL_CONTEXT):
        raise VaultError(
            f"{SEAL_FILE} of the home and of its signer folder are not one key: no order would be signed; put both back from a backup"
        )
