package jws

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// deepest bounds the nesting of a token's JSON.
const deepest = 16

// CheckObject reports whether raw is exactly one JSON object in valid UTF-8, at
// most 16 levels deep, in which no name occurs twice. Names are compared
// without case, as encoding/json compares them with struct fields: {"aud":"a",
// "AUD":"b"} would otherwise be read as b by Go and as a by others.
func CheckObject(raw []byte) error {
	if err := checkObject(raw); err != nil {
		return malformed("%v", err)
	}
	return nil
}

func checkObject(raw []byte) error {
	if !utf8.Valid(raw) {
		return errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	first, err := d.Token()
	if err != nil || first != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	if err := walkObject(d, 1); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text after the JSON object")
	}
	return nil
}

// walkObject reads the rest of an object whose brace was read.
func walkObject(d *json.Decoder, depth int) error {
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return errors.New("broken JSON")
		}
		name, ok := t.(string)
		if !ok {
			return errors.New("broken JSON")
		}
		folded := fold(name)
		if seen[folded] {
			return fmt.Errorf("%s occurs twice", quoteName(name))
		}
		seen[folded] = true
		if err := walkValue(d, depth); err != nil {
			return err
		}
	}
	return closing(d)
}

func walkValue(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return errors.New("broken JSON")
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth >= deepest {
		return fmt.Errorf("nested more than %d deep", deepest)
	}
	if open == '{' {
		return walkObject(d, depth+1)
	}
	for d.More() {
		if err := walkValue(d, depth+1); err != nil {
			return err
		}
	}
	return closing(d)
}

func closing(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return errors.New("broken JSON")
	}
	return nil
}

// fold maps names that encoding/json takes for one another to one string: the
// smallest rune of each case orbit, so that K, k and the Kelvin sign agree.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return least
	}, s)
}
