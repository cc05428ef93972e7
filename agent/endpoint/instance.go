package endpoint

import (
	"net/http"
	"strconv"
	"strings"
)

// Instance is what the instance documents show of this device
// (firmware-notes/wire.md). Every field may be empty; a device that is not
// connected leaves those of its resource empty. No field is secret.
type Instance struct {
	AzEnvironment     string
	Location          string
	Name              string
	OSType            string
	Provider          string
	ResourceGroupName string
	ResourceID        string
	SecureBootEnabled string // "true", "false"
	VirtualTPMEnabled string
	SKU               string
	SubscriptionID    string
	Tags              []Tag
	TenantID          string // of the system-assigned identity; /metadata/identity/info
	Version           string // of the kernel
	VMID              string
}

// Tag is one tag of the resource.
type Tag struct{ Name, Value string }

// supported are the api-versions that clients were seen to use; any date is
// answered.
var supported = list{"2018-02-01", "2019-08-01", "2019-08-15", "2019-11-01", "2020-06-01", "2021-02-01"}

// newest is how many of supported an error names.
const newest = 3

// member is a key with a value: a string, an object ([]member), a list, or nil
// for null. Order is kept.
type member struct {
	key   string
	value any
}

type (
	object []member
	list   []any
)

// document is the tree below /metadata/instance.
func (i Instance) document() object {
	return object{{"compute", i.compute()}, {"network", object{}}}
}

func (i Instance) compute() object {
	var pairs []string
	tags := list{}
	for _, t := range i.Tags {
		pairs = append(pairs, t.Name+":"+t.Value)
		tags = append(tags, object{{"name", t.Name}, {"value", t.Value}})
	}
	return object{
		{"azEnvironment", i.AzEnvironment},
		{"customData", ""},
		{"isHostCompatibilityLayerVm", ""},
		{"location", i.Location},
		{"name", i.Name},
		{"offer", ""},
		{"osType", i.OSType},
		{"placementGroupId", ""},
		{"plan", object{{"name", ""}, {"product", ""}, {"publisher", ""}}},
		{"platformFaultDomain", ""},
		{"platformUpdateDomain", ""},
		{"provider", i.Provider},
		{"publicKeys", nil},
		{"publisher", ""},
		{"resourceGroupName", i.ResourceGroupName},
		{"resourceId", i.ResourceID},
		{"securityProfile", object{{"secureBootEnabled", i.SecureBootEnabled}, {"virtualTpmEnabled", i.VirtualTPMEnabled}}},
		{"sku", i.SKU},
		{"storageProfile", object{}},
		{"subscriptionId", i.SubscriptionID},
		{"tags", strings.Join(pairs, ";")},
		{"tagsList", tags},
		{"version", i.Version},
		{"vmId", i.VMID},
		{"vmScaleSetName", ""},
		{"vmSize", ""},
		{"zone", ""},
	}
}

// find walks down to the value at path ("compute/tagsList/0/name").
func find(value any, path string) (any, bool) {
	for path != "" {
		var step string
		step, path, _ = strings.Cut(path, "/")
		switch node := value.(type) {
		case object:
			next, ok := node.find(step)
			if !ok {
				return nil, false
			}
			value = next
		case list:
			i, err := strconv.ParseUint(step, 10, 8)
			if err != nil || int(i) >= len(node) {
				return nil, false
			}
			value = node[i]
		default:
			return nil, false
		}
	}
	return value, true
}

func (o object) find(key string) (any, bool) {
	for _, m := range o {
		if m.key == key {
			return m.value, true
		}
	}
	return nil, false
}

// appendValue encodes a tree as JSON.
func appendValue(b []byte, value any) []byte {
	switch v := value.(type) {
	case string:
		return appendString(b, v)
	case object:
		b = append(b, '{')
		for i, m := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, m.key), ':')
			b = appendValue(b, m.value)
		}
		return append(b, '}')
	case list:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, e)
		}
		return append(b, ']')
	}
	return append(b, "null"...)
}

func (s *Server) thisInstance() Instance {
	if s.o.Instance == nil {
		return Instance{}
	}
	return s.o.Instance()
}

// instance answers /metadata/instance and what is below it. A leaf is text and
// needs format=text; everything else is JSON.
func (x *exchange) instance(query, path string) {
	p, ok := x.documentQuery(query)
	if !ok {
		return
	}
	value, ok := find(x.s.thisInstance().document(), path)
	if !ok {
		x.sendError(answer{
			status: http.StatusNotFound, code: codeNotFound,
			text: "The instance document has nothing at this path. See: /metadata/instance?api-version=2021-02-01",
		})
		return
	}
	text, leaf := value.(string)
	switch {
	case leaf && p.format == "text":
		x.send(http.StatusOK, valueText, []byte(text))
	case leaf:
		x.sendError(answer{status: http.StatusBadRequest, code: codeInvalidRequest, text: "A single value is text: ask with format=text"})
	case p.format == "" || p.format == "json":
		x.send(http.StatusOK, valueJSON, appendValue(nil, value))
	default:
		x.sendError(answer{status: http.StatusBadRequest, code: codeInvalidRequest, text: "format must be json here, and text for a single value"})
	}
}

// info answers which tenant the identities belong to.
func (x *exchange) info(query, _ string) {
	if _, ok := x.documentQuery(query); !ok {
		return
	}
	x.send(http.StatusOK, valueJSON, appendValue(nil, object{{"tenantId", x.s.thisInstance().TenantID}}))
}

// versions lists the api-versions; it needs none itself.
func (x *exchange) versions(query, _ string) {
	if _, problem := parseQuery(query); problem != "" {
		x.sendError(answer{status: http.StatusBadRequest, code: codeInvalidRequest, text: "The query is refused: " + problem})
		return
	}
	x.send(http.StatusOK, valueJSON, appendValue(nil, object{{"apiVersions", supported}}))
}

// documentQuery parses the query of a document; false if it was answered 400.
func (x *exchange) documentQuery(raw string) (params, bool) {
	p, problem := parseQuery(raw)
	if problem != "" {
		x.sendError(answer{status: http.StatusBadRequest, code: codeInvalidRequest, text: "The query is refused: " + problem})
		return p, false
	}
	if p.version() != "" {
		x.code = codeInvalidRequest
		x.send(http.StatusBadRequest, valueJSON, appendValue(nil, object{
			{"error", "Bad request. api-version is invalid or was not specified in the request."},
			{"newest-versions", supported[len(supported)-newest:]},
		}))
		return p, false
	}
	return p, true
}
