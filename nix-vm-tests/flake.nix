{
  description = "Upgrade, restart or crash a Linux service without its clients noticing";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      each = make: nixpkgs.lib.genAttrs systems (system: make (nixpkgs.legacyPackages.${system}.extend self.overlays.default));
    in
    {
      overlays.default = import ./overlay.nix;

      nixosModules.default = {
        imports = [ ./module.nix ];
        nixpkgs.overlays = [ self.overlays.default ];
      };

      packages = each (pkgs: {
        inherit (pkgs) handover handover-samples;
        default = pkgs.handover;
      });

      checks = each (pkgs: import ./tests { inherit pkgs; } // { inherit (pkgs) handover; });
    };
}
