# What of this repository a build sees. A change of anything else builds nothing anew.
{ lib }:
lib.fileset.toSource {
  root = ../.;
  fileset = lib.fileset.unions [
    ../Cargo.lock
    ../Cargo.toml
    ../LICENSE-APACHE
    ../LICENSE-MIT
    ../README.md
    ../benches
    ../src
    ../tests
    ../units
  ];
}
