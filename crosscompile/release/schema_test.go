package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// schemas validates JSON against the official schemas in testdata (JSON Schema,
// draft 7). A keyword that it does not know is a failure, never passed over.
type schemas struct {
	t     *testing.T
	files map[string]map[string]any
}

// noted are keywords that say nothing about the value.
var noted = map[string]bool{"$schema": true, "$id": true, "definitions": true, "default": true, "then": true, "else": true, "contentEncoding": true}

func (s *schemas) file(name string) map[string]any {
	if s.files[name] == nil {
		raw, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			s.t.Fatal(err)
		}
		var doc map[string]any
		if err := json.Unmarshal(raw, &doc); err != nil {
			s.t.Fatalf("%s: %v", name, err)
		}
		s.files[name] = doc
	}
	return s.files[name]
}

// resolve follows a reference: #/definitions/x, file or file#/definitions/x.
func (s *schemas) resolve(file, ref string) (string, any) {
	name, pointer, _ := strings.Cut(ref, "#")
	if name != "" {
		file = name
	}
	var at any = s.file(file)
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		if part == "" {
			continue
		}
		next, ok := at.(map[string]any)[part]
		if !ok {
			s.t.Fatalf("%s leads nowhere in %s", ref, file)
		}
		at = next
	}
	return file, at
}

// check returns what is wrong with v, which stands at path.
func (s *schemas) check(file string, schema, v any, path string) []string {
	if allowed, ok := schema.(bool); ok {
		if allowed {
			return nil
		}
		return []string{path + ": nothing may stand here"}
	}
	rules := schema.(map[string]any)
	if ref, ok := rules["$ref"].(string); ok { // draft 7: nothing beside it counts
		to, target := s.resolve(file, ref)
		return s.check(to, target, v, path)
	}
	var faults []string
	for word, rule := range rules {
		if fault := s.checkValue(word, rule, v); fault != "" {
			faults = append(faults, path+": "+fault)
			continue
		}
		faults = append(faults, s.checkParts(file, rules, word, rule, v, path)...)
	}
	return faults
}

// checkValue applies the keywords that look at the value alone.
func (s *schemas) checkValue(word string, rule, v any) string {
	text, isText := v.(string)
	number, isNumber := v.(float64)
	list, isList := v.([]any)
	bad := false
	switch word {
	case "type":
		bad = !hasType(rule, v)
	case "const":
		bad = !reflect.DeepEqual(rule, v)
	case "enum":
		bad = true
		for _, one := range rule.([]any) {
			bad = bad && !reflect.DeepEqual(one, v)
		}
	case "pattern":
		bad = isText && !regexp.MustCompile(rule.(string)).MatchString(text)
	case "format":
		bad = isText && !hasFormat(s.t, rule.(string), text)
	case "minLength":
		bad = isText && utf8.RuneCountInString(text) < int(rule.(float64))
	case "maxLength":
		bad = isText && utf8.RuneCountInString(text) > int(rule.(float64))
	case "minimum":
		bad = isNumber && number < rule.(float64)
	case "maximum":
		bad = isNumber && number > rule.(float64)
	case "minItems":
		bad = isList && len(list) < int(rule.(float64))
	case "maxItems":
		bad = isList && len(list) > int(rule.(float64))
	case "uniqueItems":
		for i := range list {
			for j := range i {
				bad = bad || rule == true && reflect.DeepEqual(list[i], list[j])
			}
		}
	}
	if bad {
		return fmt.Sprintf("%.80v breaks %s %.200v", v, word, rule)
	}
	return ""
}

// checkParts applies the keywords that hold other schemas.
func (s *schemas) checkParts(file string, rules map[string]any, word string, rule, v any, path string) (faults []string) {
	object, isObject := v.(map[string]any)
	switch word {
	case "type", "const", "enum", "pattern", "format", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "uniqueItems":
	case "required":
		for _, name := range rule.([]any) {
			if _, ok := object[name.(string)]; isObject && !ok {
				faults = append(faults, path+": lacks "+name.(string))
			}
		}
	case "properties":
		for name, part := range rule.(map[string]any) {
			if value, ok := object[name]; ok {
				faults = append(faults, s.check(file, part, value, path+"/"+name)...)
			}
		}
	case "additionalProperties":
		known, _ := rules["properties"].(map[string]any)
		for name, value := range object {
			if _, ok := known[name]; !ok {
				faults = append(faults, s.check(file, rule, value, path+"/"+name)...)
			}
		}
	case "patternProperties", "dependencies", "dependentRequired":
		if isObject {
			s.t.Fatalf("%s: %s is not understood", path, word)
		}
	case "items":
		list, _ := v.([]any)
		for i, item := range list {
			part := rule
			if several, ok := rule.([]any); ok {
				if i >= len(several) {
					part = rules["additionalItems"]
				} else {
					part = several[i]
				}
			}
			faults = append(faults, s.check(file, part, item, fmt.Sprintf("%s/%d", path, i))...)
		}
	case "additionalItems": // with items
	case "allOf", "anyOf", "oneOf":
		faults = s.checkSome(file, word, rule.([]any), v, path)
	case "not":
		if len(s.check(file, rule, v, path)) == 0 {
			faults = []string{path + ": is what it must not be"}
		}
	case "if":
		branch := "then"
		if len(s.check(file, rule, v, path)) > 0 {
			branch = "else"
		}
		if next, ok := rules[branch]; ok {
			faults = s.check(file, next, v, path)
		}
	default:
		if !noted[word] {
			s.t.Fatalf("%s: the keyword %s is not understood", path, word)
		}
	}
	return faults
}

func (s *schemas) checkSome(file, word string, parts []any, v any, path string) []string {
	good, faults := 0, []string{}
	for _, part := range parts {
		found := s.check(file, part, v, path)
		if len(found) == 0 {
			good++
		}
		faults = append(faults, found...)
	}
	if word == "allOf" && good == len(parts) || word == "anyOf" && good > 0 || word == "oneOf" && good == 1 {
		return nil
	}
	return append(faults, fmt.Sprintf("%s: %d of %d fit %s", path, good, len(parts), word))
}

func hasType(rule, v any) bool {
	if several, ok := rule.([]any); ok {
		for _, one := range several {
			if hasType(one, v) {
				return true
			}
		}
		return false
	}
	switch v := v.(type) {
	case map[string]any:
		return rule == "object"
	case []any:
		return rule == "array"
	case string:
		return rule == "string"
	case bool:
		return rule == "boolean"
	case float64:
		return rule == "number" || rule == "integer" && v == math.Trunc(v)
	}
	return rule == "null" && v == nil
}

func hasFormat(t *testing.T, format, text string) bool {
	switch format {
	case "date-time":
		_, err := time.Parse(time.RFC3339, text)
		return err == nil
	case "iri-reference", "idn-email":
		return !strings.ContainsAny(text, " <>\"\\^`{|}") && text != ""
	}
	t.Fatalf("the format %s is not understood", format)
	return false
}

// validate returns what the official schema of CycloneDX 1.6 says against raw.
func validate(t *testing.T, raw []byte) []string {
	t.Helper()
	s := &schemas{t, map[string]map[string]any{}}
	var doc any
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	const name = "bom-1.6.schema.json"
	return s.check(name, any(s.file(name)), doc, "")
}
