# nixpkgs with `handover` in it, and with `handover-samples` for tests.
final: _prev: {
  handover = final.callPackage ./package.nix { };
  handover-samples = final.callPackage ./samples.nix { };
}
