//! The kernel as a host of the datapath: packets of tc and XDP. Empty for any other target than BPF.
//!
//! All `unsafe` of the programs lies in [`context`] and in the `tables` module of the program that has maps.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
pub mod context;
