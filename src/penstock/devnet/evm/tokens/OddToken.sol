// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// An ERC-20 (TRC-20) that does what it is told to do wrong, for networks in a box. Anyone may tell it (`behave`), by a transaction like
/// any other. Its first variables are those of PlainToken.sol in the same order, and the genesis writes them in the same way.
contract OddToken {
    uint8 private constant USUAL = 0; // moves, says so in an event, returns true
    uint8 private constant FALSE = 1; // the same, but returns false, as USDT on TRON does
    uint8 private constant NOTHING = 2; // the same, but returns no data at all
    uint8 private constant SILENT = 3; // moves without an event
    uint8 private constant SHORT = 4; // keeps a hundredth; the event tells of the rest
    uint8 private constant LYING = 5; // the event, and nothing moves
    uint8 private constant TWICE = 6; // moves once, two events
    uint8 private constant PAUSED = 7; // reverts with a reason
    uint8 private constant BROKEN = 8; // an invalid instruction
    uint8 private constant ENDLESS = 9; // runs until its energy or gas is gone

    mapping(address => uint256) public balanceOf; // slot 0
    mapping(address => mapping(address => uint256)) public allowance; // slot 1
    uint256 public totalSupply; // slot 2
    uint8 public decimals; // slot 3
    string public symbol; // slot 4, at most 31 bytes
    string public name; // slot 5, at most 31 bytes
    uint8 public behaviour; // slot 6

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    function behave(uint8 how) external {
        behaviour = how;
    }

    function transfer(address to, uint256 value) external returns (bool) {
        uint8 how = behaviour;
        if (how == PAUSED) revert("transfers are paused");
        if (how == BROKEN) assembly { invalid() }
        if (how == ENDLESS) assembly { for { let at := 0 } 1 { at := add(at, 8192) } { mstore(at, 1) } }
        _move(msg.sender, to, value, how);
        if (how == NOTHING) assembly { return(0, 0) }
        return how != FALSE;
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        uint256 allowed = allowance[from][msg.sender];
        require(allowed >= value, "insufficient allowance");
        allowance[from][msg.sender] = allowed - value;
        _move(from, to, value, USUAL);
        return true;
    }

    function _move(address from, address to, uint256 value, uint8 how) private {
        require(to != address(0), "transfer to the zero address");
        uint256 balance = balanceOf[from];
        require(balance >= value, "transfer amount exceeds balance");
        if (how == LYING) {
            emit Transfer(from, to, value);
            return;
        }
        unchecked {
            balanceOf[from] = balance - value;
            if (how == SHORT) {
                balanceOf[address(this)] += value / 100;
                value -= value / 100;
            }
            balanceOf[to] += value; // cannot overflow: the sum of all balances is totalSupply
        }
        if (how != SILENT) emit Transfer(from, to, value);
        if (how == TWICE) emit Transfer(from, to, value);
    }
}
