//! nftables rules as data, applied by difference
