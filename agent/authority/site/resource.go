package site

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"
)

// Resource is an audience for which tokens are issued.
type Resource struct {
	// Identifier is what clients ask for: "https://vault.azure.net". A trailing
	// slash makes no difference. With Wildcard it ends in "*" and stands for
	// everything that begins with the rest; "*" alone is every resource.
	Identifier string `json:"identifier"`
	Wildcard   bool   `json:"wildcard,omitempty"`
	// Life is how long a token lives, 5 min to 24 h; 0 means 24 h, because long
	// offline times are what a site is for.
	Life time.Duration `json:"life,omitempty"`
}

// AddResource registers a resource, or changes one; one that is registered so
// already costs nothing. Errors: ErrInvalid.
func (a *Authority) AddResource(ctx context.Context, r Resource) error {
	if r.Life == 0 {
		r.Life = tokenLife
	}
	switch {
	case !validResource(r.Identifier):
		return fmt.Errorf("resource %q: %w: 1 to %d printable characters without spaces", cut(r.Identifier, 80), ErrInvalid, maxResource)
	case r.Life < tokenLifeLeast || r.Life > tokenLife:
		return fmt.Errorf("resource %q: %w: tokens live %v to %v", cut(r.Identifier, 80), ErrInvalid, tokenLifeLeast, tokenLife)
	case strings.Contains(r.Identifier, "*") != r.Wildcard || r.Wildcard && strings.Index(r.Identifier, "*") != len(r.Identifier)-1:
		return fmt.Errorf("resource %q: %w: a wildcard is one '*' at the end, and must be asked for", cut(r.Identifier, 80), ErrInvalid)
	}
	return a.update(ctx, func(t *tx) error {
		old, err := load[Resource](t, bucketResource, resourceKey(r.Identifier))
		if err == nil && old == r || err != nil && !errors.Is(err, errAbsent) {
			return err
		}
		t.note(Entry{Action: "resource-added", Principal: t.by, Resource: r.Identifier})
		return save(t, bucketResource, resourceKey(r.Identifier), r)
	})
}

// RemoveResource forgets a resource. Tokens that are out live on. ErrNotFound.
func (a *Authority) RemoveResource(ctx context.Context, identifier string) error {
	return a.update(ctx, func(t *tx) error {
		key := resourceKey(identifier)
		if _, err := load[Resource](t, bucketResource, key); err != nil {
			return notFound("resource", identifier, err)
		}
		t.note(Entry{Action: "resource-removed", Principal: t.by, Resource: cut(identifier, maxResource)})
		return drop(t, bucketResource, key)
	})
}

// Resources lists the registered resources by identifier.
func (a *Authority) Resources(context.Context) ([]Resource, error) {
	out := []Resource{}
	err := a.view(func(t *tx) error {
		return each(t, bucketResource, func(_ string, r Resource) error {
			out = append(out, r)
			return nil
		})
	})
	sort.Slice(out, func(i, j int) bool { return out[i].Identifier < out[j].Identifier })
	return out, err
}

func validResource(s string) bool {
	return s != "" && len(s) <= maxResource && cut(s, maxResource) == s && !strings.Contains(s, " ")
}

// resourceKey makes "https://x" and "https://x/" one resource.
func resourceKey(identifier string) string {
	if trimmed := strings.TrimRight(identifier, "/"); trimmed != "" {
		return trimmed
	}
	return identifier
}

// resource finds the registration of a requested resource: the exact one, else
// the longest wildcard that fits.
func (t *tx) resource(requested string) (Resource, error) {
	if !validResource(requested) || strings.Contains(requested, "*") {
		return Resource{}, t.a.errResource(requested)
	}
	r, err := load[Resource](t, bucketResource, resourceKey(requested))
	if err == nil || !errors.Is(err, errAbsent) {
		return r, err
	}
	best, found := Resource{}, false
	err = each(t, bucketResource, func(_ string, r Resource) error {
		prefix, wild := strings.CutSuffix(r.Identifier, "*")
		if wild && strings.HasPrefix(requested, prefix) && len(r.Identifier) > len(best.Identifier) {
			best, found = r, true
		}
		return nil
	})
	if err == nil && !found {
		err = t.a.errResource(requested)
	}
	return best, err
}
