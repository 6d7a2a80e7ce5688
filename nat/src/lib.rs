//! From what a network wants to one nftables transaction.
