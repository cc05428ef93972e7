// Package config reads the agent's one configuration file: strict TOML, with
// flag over file over built-in default. A Config is a value; it is validated as
// a whole, once, by Load, and never changes.
//
// One table (schema.go) says everything about a key: where its value lies,
// its default, what is allowed, and the text for people. Validation, the
// commented default file and `config print` all come from it.
//
// The room touches no file system and knows no platform: the caller passes
// the function that reads the file and refuses one that others could write.
// No setting comes from the environment, and no secret stands in the file.
package config
