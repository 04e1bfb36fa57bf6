// Starts bcoin's full node as Bitcoin Core's regtest network, in memory, without peers, wallet and native code.
// Usage: NODE_BACKEND=js node bcoin.js --prefix=FOLDER --http-port=N --api-key=KEY --index-tx
"use strict";

// bcoin asks for leveldown at start, also in memory, where nothing uses it. It is native code that we do not build.
const Module = require("module");
const load = Module._load;
Module._load = (name, ...rest) => (name === "leveldown" ? class {} : load(name, ...rest));

// bcoin's regtest has address prefixes of its own. These are Bitcoin Core's, which Electrum and our codec write.
const { regtest } = require("bcoin/lib/protocol/networks");
Object.assign(regtest.addressPrefix, { pubkeyhash: 0x6f, scripthash: 0xc4, bech32: "bcrt" });
regtest.keyPrefix.privkey = 0xef;

const FullNode = require("bcoin/lib/node/fullnode");
const TX = require("bcoin/lib/primitives/tx");
const { RPCError } = require("bweb").RPC;

const node = new FullNode({
  network: "regtest", memory: true, workers: false, listen: false, argv: true, httpHost: "127.0.0.1", logLevel: "info", logConsole: true,
});

// bcoin answers an id even for what it refused. The verdict here is its mempool's own, said the way Core says it.
node.rpc.calls.sendrawtransaction = async ([hex]) => {
  const transaction = TX.fromRaw(hex, "hex");
  let missing;
  try {
    missing = await node.mempool.addTX(transaction);
  } catch (error) {
    throw new RPCError(-26, error.reason || error.message);
  }
  if (missing)
    throw new RPCError(-25, "bad-txns-inputs-missingorspent");
  return transaction.txid();
};

// bcoin raises where it has no estimate, and Electrum then leaves its server. Core says this.
node.rpc.calls.estimatesmartfee = async ([blocks]) => ({ errors: ["Insufficient data or no feerate found"], blocks });

node.ensure().then(() => node.open()).catch((error) => {
  console.error(error.stack);
  process.exit(1);
});
