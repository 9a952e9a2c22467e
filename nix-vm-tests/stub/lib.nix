# As much of nixpkgs' `lib` as this folder uses, where there is no nixpkgs: the same names, written anew and
# strict. What an option does not take, and an option that does not exist, is an error here as it is there.
let
  inherit (builtins)
    all
    attrNames
    concatLists
    concatMap
    concatStringsSep
    elem
    filter
    foldl'
    functionArgs
    head
    intersectAttrs
    isAttrs
    isBool
    isFunction
    isInt
    isList
    isPath
    isString
    length
    listToAttrs
    map
    mapAttrs
    match
    replaceStrings
    sort
    toString
    ;

  optional = condition: value: if condition then [ value ] else [ ];
  optionalAttrs = condition: value: if condition then value else { };
  nameValuePair = name: value: { inherit name value; };
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  filterAttrs = keep: set: listToAttrs (filter ({ name, value }: keep name value) (mapAttrsToList nameValuePair set));
  unique = foldl' (seen: value: if elem value seen then seen else seen ++ [ value ]) [ ];
  escapeShellArg = text: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString text)}'";
  isDerivation = value: isAttrs value && (value.type or null) == "derivation";
  showPath = concatStringsSep ".";

  # ---- properties: what a module may wrap a value in

  property = kind: more: { _property = kind; } // more;
  isProperty = kind: value: isAttrs value && (value._property or null) == kind;
  mkOverride = priority: content: property "override" { inherit priority content; };
  mkIf = condition: content: property "if" { inherit condition content; };
  mkMerge = contents: property "merge" { inherit contents; };

  # A set in a property, as the sets that it stands for, with the property at each of their values: conditions are
  # not looked at before a value is wanted, for they may depend on other values.
  push =
    value:
    if isProperty "merge" value then
      concatMap push value.contents
    else if isProperty "if" value then
      map (mapAttrs (_: mkIf value.condition)) (push value.content)
    else if isProperty "override" value then
      map (mapAttrs (_: mkOverride value.priority)) (push value.content)
    else
      [ value ];

  # The values with their priorities that a wrapped value stands for.
  discharge =
    value:
    if isProperty "merge" value then
      concatMap discharge value.contents
    else if isProperty "if" value then
      (if value.condition then discharge value.content else [ ])
    else if isProperty "override" value then
      map (inner: inner // { inherit (value) priority; }) (discharge value.content)
    else
      [
        {
          priority = 100;
          inherit value;
        }
      ];

  # The values that count, of wrapped ones.
  winners =
    values:
    let
      found = concatMap discharge values;
      best = foldl' (least: one: if one.priority < least then one.priority else least) 10000 found;
    in
    map (one: one.value) (filter (one: one.priority == best) found);

  # ---- types: merge takes where it is and the unwrapped values, and throws at what does not fit

  refuse = where: type: value:
    throw "A definition for option `${showPath where}' is not of type `${type}': ${
      if isAttrs value && !isDerivation value then "a set of ${concatStringsSep ", " (attrNames value)}"
      else if isFunction value then "a function"
      else builtins.toJSON value
    }";

  plain = name: check: {
    inherit name check;
    merge =
      where: values:
      let
        wrong = filter (value: !check value) values;
      in
      if wrong != [ ] then
        refuse where name (head wrong)
      else if length (unique values) != 1 then
        throw "The option `${showPath where}' has conflicting definitions"
      else
        head values;
  };

  sets = name: merge: {
    inherit name;
    check = isAttrs;
    merge = where: values: if all isAttrs values then merge where (concatMap push values) else refuse where name (head values);
  };

  types = rec {
    bool = plain "boolean" isBool;
    int = plain "signed integer" isInt;
    str = plain "string" isString;
    path = plain "absolute path" (value: isPath value || isDerivation value || (isString value && match "/.*" value != null));
    package = plain "package" isDerivation;
    anything = plain "anything" (_: true);
    ints = {
      between = least: most: plain "integer between ${toString least} and ${toString most}" (value: isInt value && least <= value && value <= most);
      positive = plain "positive integer" (value: isInt value && value > 0);
    };
    lines = plain "lines" isString // {
      merge = where: values: if all isString values then concatStringsSep "\n" values else refuse where "lines" (head values);
    };
    enum = choices: plain "one of ${builtins.toJSON choices}" (value: elem value choices);
    nullOr = inner: either (plain "null" (value: value == null)) inner;
    either = one: other: plainOf "${one.name} or ${other.name}" (value: one.check value || other.check value);
    oneOf = choices: foldl' either (head choices) (builtins.tail choices);
    listOf = inner: {
      name = "list of ${inner.name}";
      check = value: isList value && all inner.check value;
      merge =
        where: values:
        let
          element = value: inner.merge (where ++ [ "*" ]) (winners [ value ]);
        in
        if all isList values then map element (concatLists values) else refuse where "list of ${inner.name}" (head values);
    };
    attrsOf =
      inner:
      sets "attribute set of ${inner.name}" (
        where: values:
        let
          names = unique (concatMap attrNames values);
          at = name: winners (map (value: value.${name}) (filter (value: value ? ${name}) values));
          # A value under a condition that does not hold is not there.
          present = filter (name: at name != [ ]) names;
        in
        listToAttrs (map (name: nameValuePair name (inner.merge (where ++ [ name ]) (at name))) present)
      );
    submodule = module: {
      name = "submodule";
      check = value: isAttrs value || isFunction value;
      merge =
        where: values:
        (evalModules {
          modules = (if isList module then module else [ module ]) ++ values;
          specialArgs.name = lastOf where;
          prefix = where;
        }).config;
    };
  };

  plainOf = plain;
  lastOf = list: builtins.elemAt list (length list - 1);

  # ---- modules

  isOption = value: isAttrs value && (value._type or null) == "option";

  mkOption =
    {
      type,
      default ? null,
      defaultText ? null,
      description ? null,
      example ? null,
      ...
    }@option:
    let
      unknown = attrNames (removeAttrs option [ "type" "default" "defaultText" "description" "example" ]);
    in
    if unknown != [ ] then
      throw "mkOption does not know ${concatStringsSep ", " unknown}"
    else
      option // { _type = "option"; };

  inherit (builtins) removeAttrs;

  # A module in whichever form, and those that it imports, as sets of `options` and `config`.
  collect =
    arguments: module:
    let
      value = if isPath module || isString module then import module else module;
      wanted = attrNames (functionArgs value);
      missing = filter (name: !(functionArgs value).${name} && !(arguments ? ${name})) wanted;
      opened =
        if !isFunction value then
          value
        else if missing != [ ] then
          throw "a module wants ${concatStringsSep ", " missing}, which nobody gives"
        else
          value (if wanted == [ ] then arguments else intersectAttrs (functionArgs value) arguments);
      structured = opened ? options || opened ? config;
      stray = attrNames (removeAttrs opened [ "imports" "options" "config" ]);
    in
    if structured && stray != [ ] then
      throw "a module with options or config has ${concatStringsSep ", " stray} beside them"
    else
      concatMap (collect arguments) (opened.imports or [ ])
      ++ [
        {
          options = opened.options or { };
          config = if structured then opened.config or { } else removeAttrs opened [ "imports" ];
        }
      ];

  # Trees of options as one. Only one may declare an option, but for sets in which others declare more.
  mergeOptions = foldl' (
    tree: more:
    tree
    // mapAttrs (
      name: value:
      if !(tree ? ${name}) then
        value
      else if isOption value || isOption tree.${name} then
        throw "option `${name}' is declared twice"
      else
        mergeOptions [
          tree.${name}
          value
        ]
    ) more
  ) { };

  # The values of a tree of options, from the sets that define them.
  evaluate =
    where: tree: sets':
    let
      defined = concatMap push sets';
      unknown = filter (name: !(tree ? ${name})) (unique (concatMap attrNames defined));
      at = name: map (set: set.${name}) (filter (set: set ? ${name}) defined);
      one =
        name: option:
        let
          here = where ++ [ name ];
          values = winners (at name);
        in
        if !isOption option then
          evaluate here option (at name)
        else if values != [ ] then
          option.type.merge here values
        else if option ? default then
          option.type.merge here [ option.default ]
        else
          throw "The option `${showPath here}' is used but not defined";
    in
    if unknown != [ ] then
      throw "The option `${showPath (where ++ [ (head unknown) ])}' does not exist; there are ${concatStringsSep ", " (attrNames tree)}"
    else
      mapAttrs one tree;

  evalModules =
    {
      modules,
      specialArgs ? { },
      prefix ? [ ],
    }:
    let
      arguments = specialArgs // {
        inherit lib config options;
      };
      collected = concatMap (collect arguments) modules;
      options = mergeOptions (map (module: module.options) collected);
      config = evaluate prefix options (map (module: module.config) collected);
    in
    {
      inherit config options;
    };

  lib = {
    inherit
      concatMap
      concatStringsSep
      escapeShellArg
      evalModules
      filterAttrs
      isDerivation
      mapAttrs
      mapAttrsToList
      mkIf
      mkMerge
      mkOption
      nameValuePair
      optional
      optionalAttrs
      types
      ;
    drop = count: list: builtins.genList (i: builtins.elemAt list (i + count)) (length list - count);
    concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
    escapeShellArgs = list: concatStringsSep " " (map escapeShellArg list);
    genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
    getExe = package: "${package}/bin/${package.meta.mainProgram}";
    getExe' = package: name: "${package}/bin/${name}";
    importTOML = file: builtins.fromTOML (builtins.readFile file);
    literalExpression = text: text;
    mapAttrs' = f: set: listToAttrs (mapAttrsToList f set);
    mkDefault = mkOverride 1000;
    mkEnableOption = what: mkOption {
      type = types.bool;
      default = false;
      description = "Whether to enable ${what}.";
    };
    mkForce = mkOverride 50;
    optionalString = condition: text: if condition then text else "";
    replicate = count: value: builtins.genList (_: value) count;

    fileset = {
      unions = files: map (file: if builtins.pathExists file then file else throw "${toString file} does not exist") files;
      toSource = { root, fileset }: if all isPath fileset then root else throw "a file set is made of paths";
    };
    licenses = {
      mit = "MIT";
      asl20 = "Apache-2.0";
    };
    platforms.linux = [
      "x86_64-linux"
      "aarch64-linux"
    ];
  };
in
lib
