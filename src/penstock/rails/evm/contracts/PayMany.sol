// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// Pays many holders of one ERC-20 token in one transaction, all of them or none. It moves nothing but what its caller has allowed it to
/// move, from nobody but its caller. It keeps nothing, nobody owns it, and it can be neither changed nor removed: whoever allows it an
/// amount has lent it to nobody else.
contract PayMany {
    /// Each payment is a recipient (the first 20 bytes) and what it gets in the token's base units (the last 12). Returns how many there are,
    /// so that a call of an address where this contract does not stand looks like no payment.
    function pay(address token, bytes32[] calldata payments) external returns (uint256) {
        require(token.code.length != 0, "no token");
        for (uint256 at = 0; at < payments.length; ++at) {
            bytes32 payment = payments[at];
            (bool done, bytes memory said) = token.call(
                abi.encodeWithSelector(0x23b872dd, msg.sender, address(bytes20(payment)), uint256(uint96(uint256(payment))))
            );
            // Tokens of before the standard say nothing (USDT on Ethereum); what says false has not paid.
            require(done && (said.length == 0 || abi.decode(said, (bool))), "not paid");
        }
        return payments.length;
    }
}
