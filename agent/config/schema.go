package config

// A section is one table of the file; the first has no name and holds the keys
// at the top. A repeated one is an array of tables.
type section struct {
	name   string
	doc    string
	fields []field
	// add, for a repeated section, appends an element and returns it.
	add func(c *Config) any
	// each, for a repeated section, visits the elements in order.
	each  func(c *Config) []any
	limit int // of elements
}

func (s *section) repeated() bool { return s.add != nil }

// key is the full name of one of its keys.
func (s *section) key(name string) string {
	if s.name == "" {
		return name
	}
	return s.name + "." + name
}

// A field is one key. It lies in the Config, or in an element of its section.
type field struct {
	name     string
	doc      string
	fallback string   // default, as a person types it
	example  string   // for the commented file, where a default says nothing
	choices  []string // the only values of a text
	required bool
	at       func(target any) any // pointer to the value
	// check says what is wrong with one text, or one element of a list, and
	// returns the form in which it is kept.
	check func(value string) (canonical string, p *problem)
	// least and most bound a number: count, size or duration.
	least, most int64
}

// problem is what is wrong and how it is cured.
type problem struct{ what, fix string }

func top(name, doc, fallback string, at func(*Config) any) field {
	return field{name: name, doc: doc, fallback: fallback, at: func(t any) any { return at(t.(*Config)) }}
}

func (f field) oneOf(choices ...string) field {
	f.choices = choices
	return f
}

func (f field) checked(check func(string) (string, *problem)) field {
	f.check = check
	return f
}

func (f field) between(least, most int64) field {
	f.least, f.most = least, most
	return f
}

func (f field) needed() field {
	f.required = true
	return f
}

func (f field) like(example string) field {
	f.example = example
	return f
}

// schema lists every section in the order of the file.
func schema() []section {
	return []section{
		generalSection(), arcSection(), imdsSection(), workloadSection(), grantSection(),
		authoritySection(), tokenSection(), identitySection(), keySection(), instanceSection(), auditSection(),
	}
}

// defaults is the configuration without a file.
func defaults() Config {
	c := Config{origin: map[string]Origin{}}
	for _, s := range schema() {
		if s.repeated() {
			continue
		}
		for _, f := range s.fields {
			f.reset(&c)
		}
	}
	return c
}

// reset gives the field its default. The schema is tested to hold valid ones.
func (f *field) reset(target any) {
	if f.fallback != "" {
		_ = f.setText(f.at(target), f.fallback)
	}
}
