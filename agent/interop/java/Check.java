import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * Asks for a token as MSAL for Java does: HttpURLConnection, the error stream
 * of the 401, the challenge from its header, the file, the second request.
 * Prints the second answer.
 */
public final class Check {
    public static void main(String[] args) throws Exception {
        HttpURLConnection first = open(args[0]);
        if (first.getResponseCode() != 401) {
            throw new IllegalStateException("status " + first.getResponseCode() + ", want 401");
        }
        InputStream body = first.getErrorStream();
        if (body == null || body.readAllBytes().length == 0) {
            throw new IllegalStateException("the 401 has no body: its headers would be dropped");
        }
        // A case-sensitive map of headers: the spelling is part of the contract.
        String challenge = first.getHeaderFields().get("Www-Authenticate").get(0);
        String[] parts = challenge.split("=");
        if (parts.length != 2) {
            throw new IllegalStateException("not one '=': " + challenge);
        }
        Path file = Path.of(parts[1]);
        if (!file.equals(file.normalize()) || !file.startsWith("/var/opt/azcmagent/tokens")) {
            throw new IllegalStateException("not in the token directory: " + file);
        }
        HttpURLConnection second = open(args[0]);
        second.setRequestProperty("Authorization", "Basic " + Files.readString(file));
        System.out.println(new String(second.getInputStream().readAllBytes(), StandardCharsets.UTF_8));
    }

    private static HttpURLConnection open(String url) throws Exception {
        HttpURLConnection c = (HttpURLConnection) URI.create(url).toURL().openConnection();
        c.setRequestProperty("Metadata", "true");
        c.setConnectTimeout(10_000);
        c.setReadTimeout(30_000);
        return c;
    }
}
