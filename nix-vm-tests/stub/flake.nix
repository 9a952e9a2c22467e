# What the flake gives when its input is the stub: for a test to look at.
let
  lib = import ./lib.nix;
  legacyPackages = lib.genAttrs [
    "x86_64-linux"
    "aarch64-linux"
  ] (_: import ./. { overlays = [ ]; });
  outputs = (import ../flake.nix).outputs {
    self = outputs;
    nixpkgs = { inherit lib legacyPackages; };
  };
in
outputs
