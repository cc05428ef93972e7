package main

import (
	"maps"
	"slices"
	"strings"

	"postern/agent/config"
	"postern/agent/credential"
	"postern/agent/endpoint"
)

// instanceOf puts together what /metadata/instance shows: what the
// configuration says, and where it says nothing what the identity's resource
// id says, as an Azure Arc server would.
func instanceOf(cfg config.Instance, id credential.Identity, name string) endpoint.Instance {
	i := endpoint.Instance{
		AzEnvironment: "AzurePublicCloud", Location: cfg.Location, Name: name, OSType: osType,
		ResourceID: id.ResourceID, SubscriptionID: cfg.SubscriptionID, ResourceGroupName: cfg.ResourceGroup,
		TenantID: id.TenantID, VMID: id.ObjectID, SecureBootEnabled: "false", VirtualTPMEnabled: "false",
	}
	for _, key := range slices.Sorted(maps.Keys(cfg.Tags)) {
		i.Tags = append(i.Tags, endpoint.Tag{Name: key, Value: cfg.Tags[key]})
	}
	if id.ResourceID == "" {
		return i
	}
	parts := strings.Split(strings.Trim(id.ResourceID, "/"), "/")
	for at := 0; at+1 < len(parts); at += 2 {
		switch value := parts[at+1]; strings.ToLower(parts[at]) {
		case "subscriptions":
			i.SubscriptionID = first(cfg.SubscriptionID, value)
		case "resourcegroups":
			i.ResourceGroupName = first(cfg.ResourceGroup, value)
		case "providers":
			i.Provider = value
		}
	}
	return i
}
