// Compiles all *.sol of a folder with the locked solc and prints what compiled.json beside them must hold.
// Usage: node tests/solidity/compile.js FOLDER >FOLDER/compiled.json
const fs = require("fs");
const path = require("path");
const solc = require("solc");

const folder = process.argv[2];
const names = fs.readdirSync(folder).filter((name) => name.endsWith(".sol")).sort();
const sources = Object.fromEntries(names.map((name) => [name, { content: fs.readFileSync(path.join(folder, name), "utf8") }]));
const settings = {
  // Paris: runs on every network that took part in the Merge, without PUSH0. No metadata: the same source is the same bytes.
  evmVersion: "paris",
  optimizer: { enabled: true, runs: 1000000 },
  metadata: { bytecodeHash: "none", appendCBOR: false },
  outputSelection: { "*": { "*": ["evm.deployedBytecode.object", "storageLayout"] } },
};
const answer = JSON.parse(solc.compile(JSON.stringify({ language: "Solidity", sources, settings })));
for (const error of answer.errors || []) process.stderr.write(error.formattedMessage);
if ((answer.errors || []).some((error) => error.severity === "error")) process.exit(1);

const compiled = { compiler: solc.version(), contracts: {} };
for (const name of names) {
  const contract = name.replace(".sol", "");
  const { evm, storageLayout } = answer.contracts[name][contract];
  compiled.contracts[contract] = {
    code: "0x" + evm.deployedBytecode.object,
    slots: Object.fromEntries(storageLayout.storage.map((variable) => [variable.label, Number(variable.slot)])),
  };
}
process.stdout.write(JSON.stringify(compiled, null, 2) + "\n");
