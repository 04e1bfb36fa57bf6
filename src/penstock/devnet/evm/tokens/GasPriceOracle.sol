// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// What an OP-stack network answers at 0x420000000000000000000000000000000000000F, reduced to the one question Penstock asks
/// (https://specs.optimism.io/protocol/predeploys.html#gaspriceoracle). The formula is a box's own and linear; the devnet
/// debits by the very same one (see contracts.py). Like the real oracle it adds 68 bytes for the signature that is still missing.
contract GasPriceOracle {
    uint256 public l1FeeFixed; // slot 0, wei a transaction
    uint256 public l1FeePerByte; // slot 1, wei a byte

    function getL1Fee(bytes calldata data) external view returns (uint256) {
        return l1FeeFixed + l1FeePerByte * (data.length + 68);
    }
}
